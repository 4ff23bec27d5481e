"""Types of the benchmarks' command-line arguments: for a mistake, argparse prints a sentence and exits with 2."""

import argparse
import math

import sam2


def whole(text: str) -> int:
    """1 or more. Raises ArgumentTypeError."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return number


def positive(text: str) -> float:
    """More than 0, and finite. Raises ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number


def model_name(text: str) -> str:
    """A name that `sam2.find_config` knows. Raises ArgumentTypeError."""
    try:
        sam2.find_config(text)
    except sam2.BadInput as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text
