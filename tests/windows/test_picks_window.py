"""The window with picks, used with mouse and keys on a virtual screen."""

from __future__ import annotations

import numpy as np
import pytest
from virtual_screen import pump, pumpUntil, touch

from deepetpicker.windows.picks import PicksWindow
from deepetpicker.windows.scene import Scene, make_layer
from tests.windows.conftest import POSITIONS

pytestmark = pytest.mark.gui
CTRL = 0x0004


@pytest.fixture
def window(root, scene):
    """Return an open window."""
    opened = PicksWindow("picks", scene, root).open()
    pump(opened.top, 0.3)
    yield opened
    opened.close()


def span(window, axis=0):
    """Return the width of a view in voxels."""
    left, right = window.panel.axes[axis].get_xlim()
    return right - left


def test_the_picture_on_the_screen_has_the_voxel_at_its_place(window):
    panel = window.panel
    window.set_look(average=0, clipped_percent=0.0)
    for visible in range(2):
        panel.visible[visible] = False
    panel.move_to(z=5, y=30, x=40)  # the lines of the cross are elsewhere
    pump(window.top)
    picture = np.asarray(panel.canvas.buffer_rgba())[..., 0].astype(int)
    x, y = panel.axes[0].transData.transform((20, 10))
    row, column = round(picture.shape[0] - y), round(x)
    near = picture[row - 40:row + 41, column - 40:column + 41]
    found = np.argwhere(near == near.max()).mean(axis=0) - 40
    assert np.abs(found).max() <= 1.5
    assert near.max() > 235
    assert near[0, 0] < 20
    panel.move_to(y=10, x=0)
    pump(window.top)
    picture = np.asarray(panel.canvas.buffer_rgba())[..., 0].astype(int)
    x, y = panel.axes[1].transData.transform((20, 5))
    assert picture[int(picture.shape[0] - y), int(x)] > 200


def test_the_scale_bar_lies_on_the_picture(window):
    window.top.geometry("1300x460")  # with room on both sides
    pump(window.top, 0.5)
    assert window.panel.axes[0].get_xlim()[1] > 60  # of 56 voxels
    bar = next(line for line in reversed(window.panel.axes[0].lines) if line.get_color() == "white")
    assert bar.get_xdata().max() < 55.5
    assert bar.get_ydata().min() > -0.5


def test_click_moves_the_cross_and_the_wheel_steps(window):
    touch(window.panel, 0, (30, 12), "<ButtonPress-1>")
    touch(window.panel, 0, (30, 12), "<ButtonRelease-1>")
    pumpUntil(window.top, lambda: window.panel.position[1:] == [12, 30])
    z = window.panel.position[0]
    touch(window.panel, 0, (30, 12), "<Button-4>")
    pumpUntil(window.top, lambda: window.panel.position[0] == z + 1)
    assert list(window.panel.position) == [z + 1, 12, 30]


def test_ctrl_and_wheel_zoom_about_the_mouse_and_a_key_shows_everything(window):
    before = span(window)
    for _ in range(4):
        touch(window.panel, 0, (20, 10), "<Button-4>", CTRL)
        pump(window.top, 0.05)
    assert span(window) == pytest.approx(before / 1.25 ** 4, rel=0.02)
    left, right = window.panel.axes[0].get_xlim()
    assert left < 20 < right
    window.top.focus_force()
    window.top.event_generate("<Key-0>")
    pumpUntil(window.top, lambda: abs(span(window) - before) < 1e-6)


def test_a_band_enlarges_a_part_and_the_middle_button_moves_it(window):
    for kind, point in (("<ButtonPress-1>", (10, 5)), ("<B1-Motion>", (15, 10)), ("<B1-Motion>", (20, 12)),
                        ("<ButtonRelease-1>", (20, 12))):
        touch(window.panel, 0, point, kind, CTRL)
        pump(window.top, 0.05)
    left, right = window.panel.axes[0].get_xlim()
    assert left <= 10.2
    assert right >= 19.8
    assert right - left < 20
    touch(window.panel, 0, (15, 8), "<ButtonPress-2>")
    touch(window.panel, 0, (18, 8), "<B2-Motion>")
    touch(window.panel, 0, (18, 8), "<ButtonRelease-2>")
    pump(window.top)
    assert window.panel.axes[0].get_xlim()[0] == pytest.approx(left - 3, abs=0.3)


def test_keys_go_from_pick_to_pick(window):
    window.top.focus_force()
    seen = []
    for _ in range(4):
        window.top.event_generate("<Key-n>")
        pump(window.top, 0.1)
        seen.append(tuple(window.panel.position))
    assert seen == [(5, 10, 20), (18, 30, 40), (12, 20, 30), (8, 11, 21)]  # best score first
    assert "pick 4 of 4, score 0.400" in window.status.get()
    window.top.event_generate("<Key-p>")
    pumpUntil(window.top, lambda: window.panel.position == [12, 20, 30])
    window.layer_buttons[1].invoke()  # hidden ones are passed over
    window.top.event_generate("<Key-n>")
    pumpUntil(window.top, lambda: window.panel.position == [5, 10, 20])


def test_keys_change_contrast_and_invert_and_do_not_move(window):
    window.top.focus_force()
    before = list(window.panel.position)

    def after(*keys):
        for key in keys:
            window.top.event_generate(key)
            pump(window.top, 0.05)
        return window.panel.look.clipped_percent

    window.clipped.set(0.9)
    assert after("<period>") == pytest.approx(1.0)
    assert after("<period>") == pytest.approx(1.5)
    assert after("<comma>", "<comma>") == pytest.approx(0.9)
    assert after(*["<comma>"] * 11) == 0.0
    assert after("<period>") == pytest.approx(0.1)
    after("<Key-i>")
    assert (window.panel.look.inverted, window.inverted.get()) == (True, True)
    after("<Key-i>")
    assert (window.panel.look.inverted, list(window.panel.position)) == (False, before)


def test_gallery_shows_crops_and_leads_to_the_slices(window):
    window.more_buttons[0].invoke()
    gallery = window.gallery
    pump(gallery.top, 0.3)
    assert "4 picks of a" in gallery.text.get()
    assert gallery.shown[1].position_zyx_vox == (18.0, 30.0, 40.0)
    x, y = gallery._corner(1)
    gallery.tiles.event_generate("<Button-1>", x=x + 30, y=y + 30)
    pumpUntil(window.top, lambda: window.panel.position == [18, 30, 40])
    window.set_low(0.65)
    gallery.turn(0)
    assert "2 picks" in gallery.text.get()
    gallery.close()


def test_overview_draws_all_picks(window):
    window.more_buttons[1].invoke()
    pump(window.overview.top, 0.3)
    axes = window.overview.figure.axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["ring (3)", "rod (1)"]
    window.overview.close()


def test_another_tomogram_of_another_shape(window):
    window.tomograms.selection_clear(0, "end")
    window.tomograms.selection_set(1)
    window.tomograms.event_generate("<<ListboxSelect>>")
    pumpUntil(window.top, lambda: window.panel.tomogram == "b")
    assert window.panel.viewport.shape_zyx == (20, 64, 48)
    window.top.geometry("900x700")
    pump(window.top, 0.3)
    assert window.panel.viewport.scale_px == pytest.approx(window.panel.viewport.fitting_px)


def test_a_tomogram_that_vanished_is_named_and_the_window_stays(window, tmp_path):
    (tmp_path / "b.mrc").unlink()
    window.tomograms.selection_clear(0, "end")
    window.tomograms.selection_set(1)
    window.tomograms.event_generate("<<ListboxSelect>>")
    pumpUntil(window.top, lambda: "no such tomogram" in window.status.get())
    assert window.panel.tomogram == "a"
    window.panel.draw()


def test_all_buttons_are_seen_with_two_classes_in_scipion_s_window(root, scene):
    opened = PicksWindow("picks", scene, root, extras=[("Review these", list), ("Annotate from these", list)],
                         page=str).open()
    pump(opened.top, 0.4)
    report = next(button for button in every_button(opened.top) if button.cget("text") == "Report in the browser")
    assert report.winfo_height() >= report.winfo_reqheight()
    opened.close()


LONG = "26S proteasome, double capped, with regulatory particles"


def test_all_controls_are_reached_with_twelve_classes_on_a_small_screen(root, scene):
    names = [LONG, *(f"class {n}" for n in range(11))]
    layers = [make_layer(n, name, 100.0, {"a": [(POSITIONS, np.array([0.9, 0.4, 0.7]))]})
              for n, name in enumerate(names)]
    many = Scene(list(scene.files.values()), layers)
    opened = PicksWindow("picks", many, root, extras=[("Review these", list)], page=str).open()
    opened.top.geometry("1220x740")  # what a screen of 1280 x 800 leaves
    pump(opened.top, 0.5)
    assert len({layer.colour for layer in layers}) == 12
    for button in (*opened.step_buttons, *opened.more_buttons, *opened.extra_buttons):  # these are always there
        assert button.winfo_rooty() + button.winfo_height() <= opened.top.winfo_rooty() + 740
        assert button.winfo_height() >= button.winfo_reqheight()
    assert opened.layer_texts[0].get() == "26S proteasome,\u2026: 3 of 3, 100 Å"
    legend = opened.layer_buttons[0]
    assert legend.winfo_width() >= legend.winfo_reqwidth()
    legend.event_generate("<Enter>")
    pumpUntil(opened.top, lambda: opened.status.get() == LONG)
    last, column = opened.zoom_buttons[0], opened.column
    assert last.winfo_height() >= last.winfo_reqheight()  # below the edge, and the wheel brings it up
    below = column.winfo_rooty() + column.winfo_height()
    assert last.winfo_rooty() > below
    for _ in range(20):
        opened.layer_buttons[3].event_generate("<Button-5>")
    pumpUntil(opened.top, lambda: last.winfo_rooty() + last.winfo_height() <= below)
    opened.top.geometry("1220x1200")
    pumpUntil(opened.top, lambda: not column.bar.winfo_ismapped())
    opened.close()


def every_button(widget):
    """Return all buttons in a widget."""
    own = [widget] if widget.winfo_class() == "TButton" else []
    return own + [button for child in widget.winfo_children() for button in every_button(child)]
