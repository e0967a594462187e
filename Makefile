# make sentiment     train on IMDB
# make test          ruff and all tests
# make report        runs/report.pdf, the report of your runs, with your explanations in notes.typ
# make submission NAME="Ada Lovelace" CSE=ada ID=123456789      ex5_123456789.zip, the zip to hand in
# make reference     report/report.pdf, the reference report
# make bench         the measurements of speed
# All of them set up .venv when they are first used. OPTIONS adds options to report and submission.
PYTHON ?= python3
PIP = .venv/bin/pip install -c constraints.txt

sentiment: .venv/ready
	.venv/bin/python sentiment_analysis.py

test: .venv/ready-dev
	.venv/bin/ruff check .
	.venv/bin/python -W error -W ignore::ResourceWarning -m pytest -n 2 --dist loadfile

report submission: .venv/ready-dev
	.venv/bin/python -m report.$(@:report=build) --name "$$NAME" --cse "$$CSE" --id "$$ID" $(OPTIONS)

reference: .venv/ready-dev
	.venv/bin/python -m report.build --name "Reference solution" --runs report/reference --notes report/reference/notes.typ \
	    --bonus report/reference/bonus --bonus report/reference/bonus-unsup --allow-substitutes --out report/report.pdf

bench: .venv/ready-dev
	.venv/bin/python -m benchmarks.speed

# Without a GPU, the CPU build of torch saves gigabytes of CUDA libraries.
.venv/ready: requirements.txt constraints.txt
	$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15) and 'error: set PYTHON=python3.11 to 3.14')"
	$(PYTHON) -m venv .venv
	command -v nvidia-smi || $(PIP) --no-deps --retries 1 torch --extra-index-url https://download.pytorch.org/whl/cpu
	$(PIP) -r requirements.txt
	touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	touch $@

.PHONY: sentiment test report submission reference bench
