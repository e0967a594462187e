"""Formulas of the student's notes: matplotlib draws the LaTeX that it knows."""

import io
import re

from helpers.figures import style

POINTS = 10  # size of the report's text
LONGEST, WIDEST = 500, 440  # characters, and points: a line of the report has 482


def draw_formula(tex, is_block):
    """Return a formula as {"svg": text, "depth": points below the line of text}.

    The result is empty if matplotlib cannot draw the formula; the report then shows it as it is typed.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import MathTextParser, math_to_image

    tex = f"${' '.join(tex.split())}$"
    if is_block:
        tex = re.sub(r"\\frac\b", r"\\dfrac", tex)  # large fractions
    if not tex.isascii() or len(tex) > LONGEST:  # letters that its fonts lack would be drawn as a wrong sign
        return {}
    font = FontProperties(math_fontfamily="cm", size=POINTS)
    image = io.BytesIO()
    try:
        with style("svg"):
            width = MathTextParser("path").parse(tex, prop=font).width
            depth = math_to_image(tex, image, prop=font, format="svg")
    except Exception:  # matplotlib's errors for LaTeX that it does not know are of several kinds
        return {}
    return {"svg": image.getvalue().decode(), "depth": depth} if width <= WIDEST else {}
