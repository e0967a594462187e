"""Check whether MySelfAttention and MyLayerNorm of a solution are right, and name the mistake if not.

    python -m check path/to/models.py        about 5 seconds; --json for programs

The exit code is 0 if both are right, 1 if not, and 2 if they cannot be judged.
"""

import json
import sys

from check.output import describe
from check.solution import judge_solution
from helpers.cli import Parser, number, run_command


def main():
    parser = Parser(prog="python -m check", description=__doc__.partition("\n")[0])
    parser.add_argument("path", help="the .py file with the two classes")
    parser.add_argument("--timeout", type=number(float, 0.1), default=60,
                        help="time limit for the solution in seconds (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    verdicts = judge_solution(args.path, args.timeout)
    if args.json:
        print(json.dumps(verdicts, ensure_ascii=False))
    else:
        for name, verdict in verdicts.items():
            print("\n".join(describe(name, verdict)))
    sys.stdout.flush()
    sys.exit(0 if all(verdict["right"] for verdict in verdicts.values()) else 1)


if __name__ == "__main__":
    run_command(main)
