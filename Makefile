# make sentiment     train on IMDB
# make report        runs/report.pdf, the report of your runs; OPTIONS="--notes notes.md" adds your own explanations
# make submission NAME="Ada Lovelace" CSE=ada ID=123456789      ex5_123456789.zip, the zip to hand in; takes OPTIONS too
# make reference     report/report.pdf, the reference report, from report/results/
# make test          ruff and all tests
# make fuzz          the tests that are too slow for make test
# make test-all      the tests with each installed Python from 3.11 to 3.14, each with the oldest and the newest packages
#                    that requirements.txt allows (an hour, 10 GB)
# make bench         the measurements of the README, without the long trainings
# make address REPOSITORY=OWNER/NAME      write the address of the project on GitHub into README.md and notebook.ipynb
# All of them set up .venv when they are first used. PYTHON=python3.12 chooses a Python, and replaces .venv if it is of
# another version.

SUPPORTED = 3.11 3.12 3.13 3.14
DATA ?= .data
# The name of a file in .venv has the version of its Python. It is deleted if that Python no longer works.
$(shell .venv/bin/python -c "" 2> /dev/null || rm -f .venv/python-*)
PYTHON ?= $(if $(wildcard .venv/python-*),.venv/bin/python,python3)
VERSION := $(lastword $(shell $(PYTHON) -c "import sys; print('%d.%d' % sys.version_info[:2])" 2> /dev/null))

sentiment: .venv/ready
	.venv/bin/python sentiment_analysis.py

test: .venv/ready-dev
	.venv/bin/ruff check .
	.venv/bin/python -m pytest -n 2 --dist loadfile

test-all: .venv/ready-dev
	.venv/bin/pip install --quiet uv
	for version in $(SUPPORTED); do \
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

report: .venv/ready-report
	.venv/bin/python -m report.build --runs runs --name "$$NAME" --cse "$$CSE" --id "$$ID" $(OPTIONS)

submission: .venv/ready-report
	.venv/bin/python -m report.submission --name "$$NAME" --cse "$$CSE" --id "$$ID" $(OPTIONS)

reference: .venv/ready-report
	.venv/bin/python -m report.build

bench: .venv/ready-dev
	for name in step epoch data; do .venv/bin/python -m benchmarks.$$name --data-dir $(DATA) || exit; done
	.venv/bin/python -m benchmarks.busy
	.venv/bin/python -m benchmarks.generation
	! command -v nvidia-smi || .venv/bin/python -m benchmarks.gpu --data-dir $(DATA)

address:
	perl -pi -e 's#OWNER/NAME#$(REPOSITORY)#' README.md notebook.ipynb

.venv/python-$(VERSION):
	@case " $(SUPPORTED) " in *" $(VERSION) "*) ;; *) \
	    echo "error: $(PYTHON) is $(or $(VERSION:%=Python %),missing or broken), but Python 3.11 to 3.14 is needed;" \
	        "name another one, for example with PYTHON=python3.11." >&2; exit 2;; esac
	$(PYTHON) -m venv --clear .venv
	touch $@

# Without a GPU, the CPU build of torch saves gigabytes of CUDA libraries.
.venv/ready: .venv/python-$(VERSION) requirements.txt constraints.txt
	command -v nvidia-smi || .venv/bin/pip install -c constraints.txt --no-deps --retries 1 torch \
	    --extra-index-url https://download.pytorch.org/whl/cpu
	.venv/bin/pip install -c constraints.txt -r requirements.txt
	touch $@

.venv/ready-report: .venv/ready requirements-report.txt
	.venv/bin/pip install -c constraints.txt -r requirements-report.txt
	touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt requirements-report.txt
	.venv/bin/pip install -c constraints.txt -r requirements-dev.txt
	touch $@

.PHONY: sentiment test fuzz report submission reference bench address test-all
