"""Choose the pipeline of a run. Only this module imports the bonus, so the exercise runs without `helpers/bonus/`."""

from helpers.cli import UserError
from helpers.pipeline import Pipeline
from helpers.solution import SolutionPipeline

BONUS_PRESETS = ["bonus", "bonus-unsup"]  # their settings are in helpers/bonus/pipeline.py


def load_bonus():
    """Return the package `helpers.bonus`. Raises UserError if it is missing."""
    try:
        import helpers.bonus as bonus
    except ImportError as error:
        raise UserError("the bonus needs the folder helpers/bonus/, which is missing or incomplete; copy it from the "
                        "repository, or use --preset required.") from error
    return bonus


def make_pipeline(settings, models=None):
    """Return the pipeline of a run.

    Args:
        settings: a dict as in `metrics.json`. `settings["bonus"]` is None for the exercise.
        models: path of another `models.py`, or None.
    """
    if models:
        return SolutionPipeline(settings, models)
    return load_bonus().BonusPipeline(settings) if settings["bonus"] else Pipeline(settings)
