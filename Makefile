# make sentiment: train on IMDB. make test: ruff and all tests. make report: report/report.pdf from report/results/.
# make submission NAME="..." CSE=... ID=...: the zip to hand in. All set up .venv on first use and never again.

PYTHON ?= python3

sentiment: .venv/ready
	.venv/bin/python sentiment_analysis.py

test: .venv/ready-dev
	.venv/bin/ruff check .
	.venv/bin/python -m pytest

report: .venv/ready-dev
	.venv/bin/python -m report.build

submission: .venv/ready-dev
	.venv/bin/python make_submission.py --name "$$NAME" --cse "$$CSE" --id "$$ID"

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -r requirements.txt
	touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt
	.venv/bin/pip install -r requirements-dev.txt
	touch $@

.PHONY: sentiment test report submission
