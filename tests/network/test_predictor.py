"""The network on a device: precision, batches, memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepetpicker.config import NetworkOptions
from deepetpicker.errors import DeviceMemoryError, InputError
from deepetpicker.network.predictor import Arithmetic, Predictor, choose_device, is_out_of_memory
from deepetpicker.network.resunet import ResUNet3D, probabilities

CPU = torch.device("cpu")


def network(n_classes=1):
    """Return a small network."""
    torch.manual_seed(0)
    return ResUNet3D(NetworkOptions(n_classes=n_classes, widths=(4, 6, 8, 10))).eval()


TILES = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 16, 24, 32)).astype(np.float32))


@pytest.mark.parametrize("n_classes", [1, 3])
@pytest.mark.parametrize("batch", [1, 2, 4, 8])
def test_a_batch_gives_what_single_tiles_give(n_classes, batch):
    net = network(n_classes)
    with torch.inference_mode():
        expected = torch.cat([probabilities(net(t[None, None])) for t in TILES])
    out = Predictor(net, Arithmetic(CPU, torch.float32, batch))(TILES)
    assert out.shape == (5, n_classes, 16, 24, 32)
    np.testing.assert_allclose(out, expected, atol=5e-4)


@pytest.mark.parametrize("keep", [(slice(3, 9), slice(0, 24), slice(12, 13)),
                                  (slice(0, 16), slice(10, 24), slice(0, 5))])
def test_a_part_is_what_the_whole_has_there(keep):
    predictor = Predictor(network(3), Arithmetic(CPU, torch.float32, 2))
    np.testing.assert_array_equal(predictor(TILES, keep), predictor(TILES)[(..., *keep)])


def test_bfloat16_is_close_to_float32():
    net = network()
    exact = Predictor(net, Arithmetic(CPU, torch.float32, 1))(TILES)
    half = Predictor(net, Arithmetic(CPU, torch.bfloat16, 1))(TILES)
    assert (exact - half).abs().max() < 0.02


def test_the_same_input_gives_the_same_output():
    predictor = Predictor(network(), Arithmetic.choose("cpu"))
    np.testing.assert_array_equal(predictor(TILES), predictor(TILES))


def test_any_callable_module_can_predict():
    class Half(torch.nn.Module):
        def forward(self, x):
            return x * 0

    out = Predictor(Half(), Arithmetic(CPU, torch.float32, 2))(TILES)
    np.testing.assert_array_equal(out, np.full((5, 1, 16, 24, 32), 0.5, np.float16))


class Hungry(torch.nn.Module):
    """Runs out of memory above a number of tiles."""

    def __init__(self, limit, error):
        super().__init__()
        self.limit, self.error = limit, error

    def forward(self, x):
        if len(x) > self.limit:
            raise self.error
        return x


DEVICE = torch.cuda.OutOfMemoryError("out of memory")
HOST = RuntimeError("[enforce fail at alloc_cpu.cpp:125] . DefaultCPUAllocator: can't allocate memory: you tried to "
                    "allocate 99 bytes. Error code 12 (Cannot allocate memory)")


CUDNN = RuntimeError("GET was unable to find an engine to execute this computation")
CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@pytest.mark.parametrize("error", [DEVICE, HOST, CUDNN, CUBLAS, MemoryError()])
def test_out_of_memory_shrinks_the_batch_and_loses_nothing(error):
    predictor = Predictor(Hungry(2, error), Arithmetic(CPU, torch.float32, 4))
    out = predictor(TILES)
    assert predictor.batch == 2
    np.testing.assert_allclose(out[:, 0], 1 / (1 + np.exp(-TILES)), atol=5e-4)


def test_another_error_is_not_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError, match="shapes differ"):
        Predictor(Hungry(0, RuntimeError("shapes differ")), Arithmetic(CPU, torch.float32, 4))(TILES)


def test_the_host_really_running_out_of_memory_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55)
    assert is_out_of_memory(caught.value)


def test_warming_up_tells_the_time_of_a_voxel():
    predictor = Predictor(network(), Arithmetic(CPU, torch.float32, 1))
    assert 0 < predictor.warm_up(16) < 1
    assert predictor.take_seconds() == 0


def test_out_of_memory_with_one_tile_says_what_to_do():
    with pytest.raises(DeviceMemoryError, match="smaller --tile"):
        Predictor(Hungry(0, DEVICE), Arithmetic(CPU, torch.float32, 4))(TILES)


def test_a_lack_of_memory_repeats_what_the_device_said():
    with pytest.raises(DeviceMemoryError, match="unable to find an engine"):
        Predictor(Hungry(0, CUDNN), Arithmetic(CPU, torch.float32, 4))(TILES)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_named_and_auto_goes_on_without():
    assert choose_device("auto") == CPU
    with pytest.raises(InputError, match="--device cpu"):
        choose_device("cuda")


@pytest.mark.parametrize(("threads", "batch"), [(1, 2), (2, 1)])
def test_a_single_thread_takes_two_tiles_at_once(monkeypatch, threads, batch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert Arithmetic.choose("cpu").batch == batch
    assert Arithmetic.choose("cpu", batch=5).batch == 5


def test_one_tile_with_one_thread_gives_what_it_gives_with_more(monkeypatch):
    predictor = Predictor(network(), Arithmetic(CPU, torch.float32, 2))
    expected = predictor(TILES[:1])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    out = predictor(TILES[:1])
    assert out.shape == expected.shape
    torch.testing.assert_close(out, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("widths", [(4,), (4, 6), (4, 6, 8), (4, 6, 8, 10, 12)])
def test_networks_of_any_depth_predict_a_part_of_a_tile(widths):
    torch.manual_seed(0)
    predictor = Predictor(ResUNet3D(NetworkOptions(widths=widths)).eval(), Arithmetic(CPU, torch.float32, 1))
    assert predictor.stride == max(8, 2 ** (len(widths) - 1))
    tiles, keep = TILES[:1, :, :16, :], (slice(3, 11), slice(0, 16), slice(12, 25))
    torch.testing.assert_close(predictor(tiles, keep), predictor(tiles)[(..., *keep)], atol=0, rtol=0)
    assert predictor.warm_up(8) > 0


@pytest.mark.parametrize("looks", [2, 4, 8])
def test_mirrored_looks_are_averaged(looks):
    once, often = (Predictor(network(2), Arithmetic(CPU, torch.float32, 2), n) for n in (1, looks))
    axes = {2: [()] + [(3,)], 4: [(), (3,), (2,), (2, 3)],
            8: [(), (3,), (2,), (1,), (2, 3), (1, 3), (1, 2), (1, 2, 3)]}[looks]
    expected = torch.stack([once(TILES.flip(a)).flip([i + 1 for i in a]).float() for a in axes]).mean(0)
    np.testing.assert_allclose(often(TILES), expected, atol=1e-3)
    keep = (slice(3, 9), slice(0, 23), slice(12, 13))
    np.testing.assert_allclose(often(TILES, keep), expected[(..., *keep)], atol=1e-3)


@pytest.mark.long
def test_eight_looks_make_a_mirrored_tile_a_mirrored_answer():
    often = Predictor(network(), Arithmetic(CPU, torch.float32, 2), 8)
    for axis in (1, 2, 3):
        np.testing.assert_allclose(often(TILES.flip(axis)), often(TILES).flip(axis + 1), atol=1e-3)


def test_other_numbers_of_looks_are_refused():
    with pytest.raises(InputError, match="1, 2, 4, 8, got 3"):
        Predictor(network(), Arithmetic(CPU, torch.float32, 1), 3)
