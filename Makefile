# One verb a target. Each makes what it needs: `make demo` and `make test` work on a bare machine with Python 3.11.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Environments beside the first one: the LiteRT converter (2 GB, never on a device), the last runtime of TensorFlow Lite
# (NumPy 1 only), a broker that speaks MQTT 3.1.1 only, and a newer Python for ExecuTorch without PyTorch, if this machine has one.
LITERT     := .venv-litert
TFLITE     := .venv-tflite
NEWER      := .venv-312
AMQTT      := .venv-amqtt
LITERT_TESTS := tests/export/litert tests/export/micro tests/device_runtime/test_litert_engine.py
NEW_PYTHON ?= $(shell tools/newer_python.sh)
# Tests at a time: one more than there are processors, for half of its time a test only waits. WORKERS=0: one by one.
WORKERS    ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
# Modules are dealt out whole, in the order of tests/conftest.py; threads of PyTorch would only fight for the processors.
SIDE_BY_SIDE := -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m 'not alone'

.PHONY: demo test test-litert test-arm test-starved test-brokers test-cortex test-kill environments check docs fix clean

demo: $(STAMP)  ## run the whole MAS job on real data with ten device processes (under 3 minutes)
	$(BIN)/mas-edge demo --out demo-out --json demo-out/result.json $(DEMO_ARGS)

# 5 is pytest's status for: of what was named in PYTEST_ARGS nothing is of this half.
test: $(STAMP)  ## the tests: several at a time, then one by one those that measure
	@status=0; set -x; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE) $(PYTEST_ARGS) || [ $$? -eq 5 ] || status=1; \
	$(BIN)/python -m pytest -m alone $(PYTEST_ARGS) || [ $$? -eq 5 ] || status=1; \
	exit $$status

test-litert: $(LITERT)/.installed $(TFLITE)/.installed  ## the tests of LiteRT and of microboards, where their converter is
	OMP_NUM_THREADS=1 MAS_EDGE_TFLITE_RUNTIME_PYTHON=$(TFLITE)/bin/python \
	  $(LITERT)/bin/python -m pytest -p no:anyio $(SIDE_BY_SIDE) $(LITERT_TESTS) $(PYTEST_ARGS)

test-arm: $(STAMP) $(LITERT)/.installed  ## the device runtime on emulated ARM, 64 and 32 bit, up to a whole job: Debian 12, fetches 220 MB once
	MAS_EDGE_ARM=aarch64 $(BIN)/python -m pytest tests/e2e/test_arm.py $(PYTEST_ARGS)
	MAS_EDGE_ARM=armv7 $(LITERT)/bin/python -m pytest -p no:anyio tests/e2e/test_arm.py $(PYTEST_ARGS)

test-starved: $(STAMP)  ## a device under a real limit on its address space: fails, says so, goes on with less
	MAS_EDGE_STARVE=1 $(BIN)/python -m pytest tests/e2e/test_memory.py $(PYTEST_ARGS)

test-brokers: $(STAMP) $(AMQTT)/.installed  ## the acceptance suite on mosquitto, the embedded broker and amqtt, every packet limit
	MAS_EDGE_BROKERS=mosquitto,embedded,amqtt $(BIN)/python -m pytest tests/device_runtime/test_mqtt.py tests/e2e/test_whole_job.py \
	  tests/e2e/test_faults.py tests/e2e/test_refusals.py tests/e2e/test_deployment.py tests/e2e/test_packet_limits.py $(PYTEST_ARGS)

test-cortex: $(STAMP)  ## the wire's vectors read in C on an emulated Cortex-M4: needs gcc-arm-none-eabi, libnewlib-arm-none-eabi, qemu-system-arm
	MAS_EDGE_CORTEX=1 $(BIN)/python -m pytest tests/micro/test_c.py $(PYTEST_ARGS)

test-kill: $(STAMP)  ## 200 jobs whose processes are killed at random moments, and 5000 simulated schedules
	MAS_EDGE_KILL_RUNS=200 MAS_EDGE_SCHEDULES=5000 MAS_EDGE_REQUIRE_MOSQUITTO=1 $(BIN)/python -m pytest tests/faults $(PYTEST_ARGS)

environments: $(LITERT)/.installed $(TFLITE)/.installed $(AMQTT)/.installed $(if $(NEW_PYTHON),$(NEWER)/.installed)  ## every environment that tests use

check: $(STAMP)  ## style, types, arrows between rooms, dead code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture

# The whole checkout is the source: pages stand beside the code, too.
docs: $(STAMP)  ## the documentation as a static site in build/site; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -j auto -c docs/site -d build/site-cache . build/site
	echo '<!doctype html><title>mas-edge</title><meta http-equiv="refresh" content="0; url=docs/site/index.html">' > build/site/index.html
	$(BIN)/python tools/check_site.py build/site

fix: $(STAMP)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# An editable install: the sources need no re-install, so a second run starts at once.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(LITERT)/.installed: pyproject.toml
	$(PYTHON) -m venv $(LITERT)
	$(LITERT)/bin/python -m pip install --quiet torch==2.13.0 --editable '.[litert-export]' 'hypothesis>=6.100' 'pytest>=8.2,<9' 'pytest-rerunfailures>=15' 'pytest-timeout>=2.3' 'pytest-xdist>=3.7'
	touch $@

$(TFLITE)/.installed: pyproject.toml
	$(PYTHON) -m venv $(TFLITE)
	$(TFLITE)/bin/python -m pip install --quiet --editable '.[tflite]'
	touch $@

$(AMQTT)/.installed: pyproject.toml
	$(PYTHON) -m venv $(AMQTT)
	$(AMQTT)/bin/python -m pip install --quiet amqtt==0.12.1
	touch $@

$(NEWER)/.installed: pyproject.toml
	$(NEW_PYTHON) -m venv $(NEWER)
	$(NEWER)/bin/python -m pip install --quiet --editable '.[executorch]'
	touch $@

clean:  ## remove everything that was made here
	rm -rf $(VENV) $(LITERT) $(TFLITE) $(NEWER) $(AMQTT) demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
