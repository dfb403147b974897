"""The network on a device: precision, batches, memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepetpicker.config import NetworkOptions
from deepetpicker.errors import DeviceMemoryError, InputError
from deepetpicker.models.resunet import ResUNet3D, probabilities
from deepetpicker.predictor import Arithmetic, Predictor, choose_device

CPU = torch.device("cpu")


def network(n_classes=1):
    """Return a small network."""
    torch.manual_seed(0)
    return ResUNet3D(NetworkOptions(n_classes=n_classes, widths=(4, 6, 8, 10))).eval()


TILES = np.random.default_rng(0).normal(size=(5, 16, 24, 32)).astype(np.float32)


@pytest.mark.parametrize("n_classes", [1, 3])
@pytest.mark.parametrize("batch", [1, 2, 4, 8])
def test_a_batch_gives_what_single_tiles_give(n_classes, batch):
    net = network(n_classes)
    with torch.inference_mode():
        expected = torch.cat([probabilities(net(torch.from_numpy(t)[None, None])) for t in TILES]).numpy()
    out = Predictor(net, Arithmetic(CPU, torch.float32, batch))(TILES)
    assert out.shape == (5, n_classes, 16, 24, 32)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_bfloat16_is_close_to_float32():
    net = network()
    exact = Predictor(net, Arithmetic(CPU, torch.float32, 1))(TILES)
    half = Predictor(net, Arithmetic(CPU, torch.bfloat16, 1))(TILES)
    assert np.abs(exact - half).max() < 0.02


def test_the_same_input_gives_the_same_output():
    predictor = Predictor(network(), Arithmetic.choose("cpu"))
    np.testing.assert_array_equal(predictor(TILES), predictor(TILES))


def test_any_callable_module_can_predict():
    class Half(torch.nn.Module):
        def forward(self, x):
            return x * 0

    out = Predictor(Half(), Arithmetic(CPU, torch.float32, 2))(TILES)
    np.testing.assert_array_equal(out, np.full((5, 1, 16, 24, 32), 0.5, np.float32))


class Hungry(torch.nn.Module):
    """Runs out of memory above a number of tiles."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def forward(self, x):
        if len(x) > self.limit:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return x


def test_out_of_memory_shrinks_the_batch_and_loses_nothing():
    predictor = Predictor(Hungry(2), Arithmetic(CPU, torch.float32, 4))
    out = predictor(TILES)
    assert predictor.batch == 2
    np.testing.assert_allclose(out[:, 0], 1 / (1 + np.exp(-TILES)), atol=1e-6)


def test_out_of_memory_with_one_tile_says_what_to_do():
    with pytest.raises(DeviceMemoryError, match="smaller --tile"):
        Predictor(Hungry(0), Arithmetic(CPU, torch.float32, 4))(TILES)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_named_and_auto_goes_on_without():
    assert choose_device("auto") == CPU
    with pytest.raises(InputError, match="--device cpu"):
        choose_device("cuda")
