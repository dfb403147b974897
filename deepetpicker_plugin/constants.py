"""Names that several modules of the plugin share: variables, folders and files inside a protocol's extra folder."""

URL = "https://github.com/scipion-em/scipion-em-deepetpicker"

PLUGIN_DISTRIBUTION = "scipion-em-deepetpicker"

# Variables of the Scipion configuration.
DEEPETPICKER_HOME = "DEEPETPICKER_HOME"
DEEPETPICKER_ENV_ACTIVATION = "DEEPETPICKER_ENV_ACTIVATION"

# Folders and files below the extra folder of a protocol.
PARAMS_FILE = "params.json"
MANIFEST_FILE = "manifest.json"
COORDINATES_DIR = "coordinates"

TRAINING_DIR = "training"
MODEL_FILE = "training/model.safetensors"
FIRST_METRICS_FILE = "training/model_run/model_first_run/metrics.csv"  # of the first of two trainings
METRICS_FILE = "training/model_run/metrics.csv"  # a row per epoch, grows while the training runs
TRAINING_MANIFEST = "training/model_run/manifest.json"

PICKS_DIR = "picks"  # one folder per engine start: picks/batch_001/{TS.csv, TS_candidates.csv, manifest.json}
SIGNATURE_FILE = "picks/signature.json"
DEVICES_FILE = "devices.json"  # what computes, as the machine that does so says

EVALUATION_DIR = "evaluation"
REPORT_FILE = "evaluation/report.html"
EVALUATION_FILE = "evaluation/evaluation.json"
CURVE_FILE = "evaluation/curve.csv"

PAGE_DIR = "page"  # what the engine wrote when the page of a training or picking was asked for
PAGE_FILE = "page/report.html"

COMPARISON_DIR = "comparison"
SIMULATION_DIR = "simulation"
PROPOSALS_DIR = "proposals"
CHECK_DIR = "check"
ANNOTATION_DIR = "annotation"  # journal, and a version per closed window: annotation/version_001/{TS.csv, ...}

PROCESS_FILE = "process.txt"  # host, number and begin of the process that runs the protocol

# Files that a started engine leaves in its folder.
ENGINE_SCRIPT = "engine.sh"
ENGINE_PID = "engine.pid"    # host, process number and its shell's, there while the engine runs
ENGINE_EXIT = "engine.exit"  # exit status, there when it ended
ENGINE_LOG = "engine.log"    # when each start began and ended, host, process number, devices
ENGINE_ERRORS = "engine.err"

# Scipion fills a new form with the first output of the selected protocol whose class stands in a parameter, word for
# word. The space keeps it from filling a second parameter with the same set; it is stripped where a set is chosen.
CHOSEN_COORDINATES = "SetOfCoordinates3D "
