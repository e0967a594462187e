# make sentiment: train on IMDB. make test: ruff and all tests. make fuzz: what is too slow for that. make report:
# report/report.pdf from report/results/. make submission NAME="..." CSE=... ID=...: the zip to hand in. make bench: every
# figure of the README but those of the long trainings. All set up .venv on first use and never again.
# make test-all: the tests with each Python of 3.11 to 3.14 that is here, with the oldest and the newest packages that
# requirements.txt admits (an hour, 10 GB).
# make address REPOSITORY=OWNER/NAME: where the project is on GitHub, once, for README.md and notebook.ipynb.

PYTHON ?= python3
DATA ?= .data

sentiment: .venv/ready
	.venv/bin/python sentiment_analysis.py

test: .venv/ready-dev
	.venv/bin/ruff check .
	.venv/bin/python -m pytest -n 2 --dist loadfile

test-all: .venv/ready-dev
	.venv/bin/pip install --quiet uv
	for version in 3.11 3.12 3.13 3.14; do \
	    python$$version -c "" 2> /dev/null || continue; \
	    for end in lowest-direct highest; do \
	        echo "Python $$version, $$end"; \
	        .venv/bin/uv venv --clear --seed --quiet --python python$$version .venv/$$version-$$end && \
	        .venv/bin/uv pip install --quiet --python .venv/$$version-$$end --only-binary :all: --resolution $$end \
	            -r requirements-dev.txt && \
	        .venv/$$version-$$end/bin/python -m pytest -n 2 --dist loadfile || exit; \
	    done; \
	done

fuzz: .venv/ready-dev
	.venv/bin/python -m pytest -m slow tests

report: .venv/ready-dev
	.venv/bin/python -m report.build

submission: .venv/ready-dev
	.venv/bin/python -m report.submission --name "$$NAME" --cse "$$CSE" --id "$$ID"

bench: .venv/ready-dev
	.venv/bin/pip install --quiet fasttext-numpy2-wheel
	for name in step epoch data start predict time_to_85 peer busy; do \
	    .venv/bin/python -m benchmarks.$$name --data-dir $(DATA) || exit; done
	.venv/bin/python -m benchmarks.generation
	! command -v nvidia-smi || .venv/bin/python -m benchmarks.gpu --data-dir $(DATA)

address:
	perl -pi -e 's#OWNER/NAME#$(REPOSITORY)#' README.md notebook.ipynb

# Without a GPU, torch's CPU build, where it is to be had, saves gigabytes of CUDA libraries.
.venv/ready: requirements.txt constraints.txt
	$(PYTHON) -m venv .venv
	command -v nvidia-smi || .venv/bin/pip install -c constraints.txt --no-deps --retries 1 torch \
	    --extra-index-url https://download.pytorch.org/whl/cpu
	.venv/bin/pip install -c constraints.txt -r requirements.txt
	touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt
	.venv/bin/pip install -c constraints.txt -r requirements-dev.txt
	touch $@

.PHONY: sentiment test fuzz report submission bench address test-all
