# make setup   .venv with everything; the first step of the others, seconds where it is done
# make demo    a search on generated shapes; installs what a search needs, the others add the rest
# make test    every test but the exhaustive ones (python -m pytest -m exhaustive)
# make docs    the documentation as a site, in build/docs
# make check   what CI checks: style, types, tests
# make clean   takes away what these made, runs excepted
# Variables: PYTHON, SGAS_TORCH, SGAS_SCATTER (see scripts/bootstrap)
.PHONY: setup demo test docs check clean

setup:
	@scripts/bootstrap

demo:
	@scripts/bootstrap demo
	.venv/bin/sgas-gcn search --dataset shapes

test: setup
	.venv/bin/python -m pytest -n auto

docs: setup
	.venv/bin/python -m sphinx -qW --keep-going docs build/docs

check:
	@scripts/check

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
