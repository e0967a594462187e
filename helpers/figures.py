"""Figures of runs and of the report: losses, attention weights, and reliability of probabilities.

Each function returns the bytes of a PNG or an SVG file. The result depends only on the arguments: not on the user's
settings of matplotlib, and not on the date.
"""

import contextlib
import importlib.util
import io
import os
import sys
from pathlib import Path

import numpy as np

from helpers.cli import note
from helpers.files import whole_file

# matplotlib is imported inside the functions: it takes half a second, and most commands draw nothing.

POINTS = {"png": 10, "svg": 7.5}  # size of the text: a PNG is looked at alone, an SVG is part of a page
MOST_TICKS = 10  # epochs that are written at the axis
MIN_TEXTS = 100  # a point of the reliability diagram needs so many texts
DASHES = {"5": "dotted", "10": "dashdot", "20": "dashed", "50": (0, (1, 1)), "all": "solid"}  # by tokens of a text


def import_matplotlib():
    """Import and return matplotlib. If the user's settings make that fail, import it without them.

    It fails if MPLBACKEND names an unknown backend, which a notebook passes on to its commands, and if a file
    `matplotlibrc` is not UTF-8.
    """
    try:
        import matplotlib
    except ImportError:
        raise
    except Exception:
        matplotlib = import_with_defaults()
    return matplotlib


def import_with_defaults():
    """Import and return matplotlib without MPLBACKEND, and with its own `matplotlibrc`."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        del sys.modules[name]  # half imported
    folder = Path(importlib.util.find_spec("matplotlib").origin).parent
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        with contextlib.chdir(folder / "mpl-data"):  # it reads the `matplotlibrc` of the current folder first
            import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return matplotlib


def style(format):
    """Return a context manager that replaces the user's settings of matplotlib."""
    matplotlib = import_matplotlib()
    points = POINTS[format]
    settings = dict(matplotlib.rcParamsDefault)
    del settings["backend"]  # setting it imports pyplot, which looks for a display
    settings |= {"font.size": points, "axes.titlesize": points * 1.1, "legend.fontsize": points,
                 "axes.linewidth": 0.6, "svg.hashsalt": "figure"}  # ids in an SVG are random without a salt
    return matplotlib.rc_context(settings)


def new_figure(size):
    """Return an empty figure of `size` (width, height) in inches. It needs no display."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def to_bytes(figure, format):
    """Return a figure as the bytes of a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, dpi=200, metadata={"Date": None} if format == "svg" else None)
    return buffer.getvalue()


def losses_of(metrics, name):
    """Return "train_loss" or "valid_loss" of each epoch of a run, a list."""
    return [epoch[name] for epoch in metrics["epochs"]]


def draw_losses(runs, format="svg", title=None, size=(3.4, 2.1)):
    """Draw the training and validation loss of each epoch. Of several runs, draw the mean and a thin line for each.

    Args:
        runs: the metrics of one or more runs, as in `metrics.json`, with equal numbers of epochs.
        format: "png" or "svg".
        title: a line above the axes, or None.
        size: width and height in inches.
    """
    with style(format):
        figure = new_figure(size)
        axes = figure.subplots()
        epochs = range(1, len(runs[0]["epochs"]) + 1)
        step = -(-len(epochs) // MOST_TICKS)  # rounded up
        for name, label, line in (("train_loss", "training", "o-"), ("valid_loss", "validation", "s--")):
            losses = np.array([losses_of(run, name) for run in runs])  # (runs, epochs)
            (mean,) = axes.plot(epochs, losses.mean(axis=0), line, label=label, linewidth=1.2, markersize=3.5)
            if len(runs) > 1:
                axes.plot(epochs, losses.T, color=mean.get_color(), linewidth=0.5, alpha=0.6)
        axes.set(xlabel="epoch", ylabel="binary cross-entropy", title=title, xticks=epochs[::step])
        axes.grid(alpha=0.3)
        axes.legend()
        return to_bytes(figure, format)


def plot_run(metrics, path):
    """Write the losses of a run as a PNG file. Its title tells the data and the test accuracy.

    If that fails, print a note: a picture is not worth a training.
    """
    try:
        data = draw_run(metrics)
        with whole_file(path) as temporary:
            temporary.write_bytes(data)
    except Exception as error:  # matplotlib can fail in many ways
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        note(f"{path} could not be drawn ({reason}); the other results are complete.")
        with contextlib.suppress(OSError):
            path.unlink()  # the plot of an earlier run with this name


def draw_run(metrics):
    """Return the losses of a run as the bytes of a PNG file. Its title tells the data and the test accuracy."""
    title = f"{metrics['data']}: test accuracy {metrics['test']['accuracy']:.1%}".replace("%", " %")
    if metrics.get("models"):
        title = f"{Path(metrics['models']).name} on {title}"
    return draw_losses([metrics], "png", title, size=(6, 3.75))


def draw_attention(words, weights, format="svg"):
    """Draw attention weights: row i shows with which weights token i reads each token; black is the largest weight.

    Args:
        words: the T tokens.
        weights: (T, T).
        format: "png" or "svg".
    """
    T = len(words)
    with style(format):
        figure = new_figure((0.75 + 0.17 * T, 0.65 + 0.17 * T))
        axes = figure.subplots()
        axes.pcolormesh(np.asarray(weights), cmap="Greys", vmin=0, edgecolors="0.8", linewidth=0.2)
        axes.set(aspect="equal")
        axes.invert_yaxis()  # the first token is at the top
        axes.xaxis.tick_top()
        middle = np.arange(T) + 0.5
        axes.set_xticks(middle, words, rotation=90, parse_math=False)
        axes.set_yticks(middle, words, parse_math=False)
        axes.tick_params(length=0)
        return to_bytes(figure, format)


def draw_reliability(diagrams, format="svg", size=(6.3, 2.1)):
    """Draw reliability diagrams side by side: accuracy over probability, one line for texts of each length.

    Args:
        diagrams: a dict from title to diagram. A diagram is a dict from the number of tokens, or "all", to rows of
            number of texts, mean probability, accuracy.
        format: "png" or "svg".
        size: width and height in inches.
    """
    with style(format):
        figure = new_figure(size)
        panels = figure.subplots(1, len(diagrams), squeeze=False, sharey=True)[0]
        for axes, (title, diagram) in zip(panels, diagrams.items(), strict=True):
            axes.plot([0.5, 1], [0.5, 1], color="0.6", linewidth=0.6)
            for length, rows in diagram.items():
                label = "whole reviews" if length == "all" else f"{length} tokens"
                points = np.array([row[1:] for row in rows if row[0] >= MIN_TEXTS]).reshape(-1, 2)
                axes.plot(*points.T, linestyle=DASHES.get(length, "solid"), color="black", linewidth=1, label=label)
            axes.set(title=title, xlabel="probability", xlim=(0.5, 1), ylim=(0.4, 1))
            axes.grid(alpha=0.3)
        panels[0].set_ylabel("accuracy")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
        return to_bytes(figure, format)
