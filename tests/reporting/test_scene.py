import math
import re

import numpy as np
import pandas as pd
import pytest

from pixel_spotter.reporting.scene import Row, camera, close_up, ellipse, mistake, rows, table


def test_the_ellipse_of_a_covariance() -> None:
    assert ellipse(np.diag([4.0, 1.0])) == pytest.approx((2, 1, 0))
    found = ellipse(np.array([[2.5, 1.5], [1.5, 2.5]]))
    assert found
    assert (found.a, found.b, found.angle % 180) == pytest.approx((2, 1, 45))
    assert ellipse(np.full((2, 2), np.nan)) is None


def test_the_camera_shows_who_answers_where() -> None:
    image = np.zeros((20, 30))
    image[4, 7] = 90
    nowhere = np.full(2, np.nan)
    answers = {"phasor": ("#123456", np.array([7.25, 4.5])), "argmax": ("#654321", nowhere)}
    drawn = camera(image, np.array([[7.2, 4.4]]), np.diag([0.04, 0.01])[None], answers)
    assert 'translate(7.2000 4.4000)" data-spot="0"' in drawn
    assert 'translate(7.2500 4.5000)" data-answer="phasor"' in drawn
    assert 'stroke="#123456"' in drawn
    assert "argmax" not in drawn
    assert 'rx="0.2" ry="0.1"' in drawn
    assert 'width="30" height="20"' in drawn
    assert "neighbour" not in drawn


def test_the_close_up_shows_how_far_answers_are_off() -> None:
    away = {
        "phasor": ("#123456", np.array([[0.1, -0.2], [0.05, 0.4], [0.0, 5.0]])),
        "centroid": ("#654321", np.array([[0.8, -0.4], [0.3, 0.2]])),
    }
    drawn = close_up(np.diag([0.01, 0.0025]), away, side=200)
    assert re.findall(r'<text x="([-\d.]+)" y="117.0">([-\d.]+)<', drawn) == [
        *[("-100.0", "-0.4"), ("-50.0", "-0.2"), ("0.0", "0"), ("50.0", "0.2"), ("100.0", "0.4")]
    ]
    assert 'translate(25.0 -50.0)" data-mark="phasor"' in drawn
    # Too far to the right, and half as far up: an arrow at the rim, in its direction.
    assert 'translate(93.0 -46.5)" data-mark="centroid"' in drawn
    assert f"rotate({math.degrees(math.atan2(-0.4, 0.8)):.1f})" in drawn
    assert drawn.count('r="2.2"') == 3, "what lies outside is not drawn"
    assert 'rx="25.0" ry="12.5"' in drawn
    assert "0.100 px along x and 0.050 px along y" in drawn
    assert "There is no bound" in close_up(np.full((2, 2), np.nan), away)


def test_the_table_says_what_is_not_known() -> None:
    row = Row("radial_symmetry", "#123456", 0.1234, math.nan, 0.2, 1.5, 0.25, "crowded")
    written = table([row], 200, neighbour=True)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", written)
    assert cells == ["0.123", "\N{EN DASH}", "0.200", "1.50", "25%"]
    assert "<small>crowded</small>" in written
    assert "± 7%" in written
    assert len(re.findall(r"<td", table([row], 200, neighbour=False))) == 4


def test_what_others_wrote_stays_text() -> None:
    assert "&lt;script&gt;" in mistake("<script>: no such file")
    spots = pd.DataFrame({"x": [1.23456, 2.0], "flag": ["", "<b>"]})
    written = rows(spots, 7)
    assert "<td>1.235</td><td></td>" in written
    assert "&lt;b&gt;" in written
    assert "These are the first 2." in written
    assert rows(spots[:0], 0) == ""
