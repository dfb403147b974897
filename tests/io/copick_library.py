"""What the copick library makes and sees of a project; run by a Python that has it: make FOLDER, or read FOLDER."""

import json
import pathlib
import sys

import copick
import numpy as np

OBJECTS = [{"name": "ribosome", "is_particle": True, "label": 3, "radius": 120.0},
           {"name": "proteasome", "is_particle": True, "label": 7, "radius": 65.0},
           {"name": "membrane", "is_particle": False, "label": 1}]
POINTS = {"ribosome": [[100.0, 205.0, 52.5], [330.0, 40.0, 81.0]], "proteasome": [[12.0, 24.0, 36.0]]}


def make(folder):
    """Write a project with two runs, a tomogram in three resolutions and picks of two users."""
    config = {"config_type": "filesystem", "name": "test", "description": "", "version": "1.0.0",
              "pickable_objects": OBJECTS, "overlay_root": f"local://{folder}/overlay",
              "static_root": f"local://{folder}/static", "overlay_fs_args": {"auto_mkdir": True}}
    (folder / "static").mkdir(parents=True)
    (folder / "overlay").mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    root = copick.from_file(str(folder / "config.json"))
    rng = np.random.default_rng(0)
    for name in ("TS_01", "TS_02"):
        run = root.new_run(name)
        tomogram = run.new_voxel_spacing(10.0).new_tomogram("wbp")
        tomogram.from_numpy(rng.normal(size=(32, 40, 48)).astype(np.float32))
        np.save(folder / f"{name}.npy", tomogram.numpy())
        for user, name_of_object in (("anna", "ribosome"), ("anna", "proteasome"), ("bert", "ribosome")):
            picks = run.new_picks(name_of_object, "1", user)
            picks.from_numpy(np.array(POINTS[name_of_object]), np.tile(np.eye(4), (len(POINTS[name_of_object]), 1, 1)))
            picks.store()


def read(folder):
    """Print the picks of deepetpicker in a project as JSON."""
    root = copick.from_file(str(folder / "config.json"))
    found = {}
    for run in root.runs:
        for picks in run.get_picks(user_id="deepetpicker"):
            points, _ = picks.numpy()
            found[f"{run.name} {picks.pickable_object_name} {picks.session_id}"] = [
                points.tolist(), [point.score for point in picks.points]]
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    {"make": make, "read": read}[sys.argv[1]](pathlib.Path(sys.argv[2]))
