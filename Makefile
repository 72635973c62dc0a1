# Every target is a call; the logic is in Python. `make` alone lists them.
PYTHON ?= python3
RUN := .venv/bin/product-classifier
.DEFAULT_GOAL := help
.PHONY: help setup env build start stop status logs monitoring dashboards dashboards-preview mutate-rules init-airflow doctor train predict test test-dags test-containers test-coverage lint format check clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Create both Python environments (uv in .tools); quick where nothing changed
	@$(PYTHON) src/product_classifier/runtime/bootstrap.py

start: setup ## Start Airflow and MLflow, run the pipeline, bring the API up (ARGS="--set image_epochs=5 --force")
	@$(RUN) start $(ARGS)

stop: ## End everything that start started
	@$(RUN) stop

status: ## Show the services and the last run
	@$(RUN) status

logs: ## Show the services' logs (S=serve ARGS=-f)
	@$(RUN) logs $(S) $(ARGS)

monitoring: setup ## Start Prometheus, Alertmanager, exporters and Grafana, alone or beside what runs
	@$(RUN) monitoring

dashboards: setup ## Make Grafana's dashboards anew from their source
	@.venv/bin/python -m monitoring.grafana.source

dashboards-preview: setup ## Draw what the dashboards would show now (PROMETHEUS_URL=http://127.0.0.1:9090 OUT=previews)
	@.venv/bin/python -m monitoring.grafana.preview --prometheus $(or $(PROMETHEUS_URL),http://127.0.0.1:9090) --out $(or $(OUT),previews) $(ARGS)

mutate-rules: setup ## Change the alert rules in every way that should be noticed, and show which changes no test notices
	@.venv/bin/python -m monitoring.prometheus.mutate $(ARGS)

build: setup ## Build all container images in parallel (ARGS="serve auth" for some)
	@$(RUN) build $(ARGS)

env: setup ## Generate into .env what the container stack needs, for `docker compose` by hand
	@$(RUN) init-env

init-airflow: setup ## Create or migrate Airflow's database, pool and login
	@$(RUN) init-airflow

doctor: setup ## Check this machine and the settings, and say what to do
	@$(RUN) doctor

train: setup ## Run the training stage here, without Airflow
	@$(RUN) train $(ARGS)

predict: setup ## Run batch prediction here, without Airflow
	@$(RUN) predict $(ARGS)

test: setup ## Run all tests that need no container engine, in two lanes side by side
	@.venv/bin/python tests/lanes.py $(ARGS)
	@echo "Left out: tests/containers (they need a container engine): make test-containers."

test-dags: setup ## Run the DAG tests only, in Airflow's environment
	@airflow/.venv/bin/python -m pytest tests/dags $(ARGS)

test-containers: setup ## Run the tests on a real container engine; fails without one
	@.venv/bin/pytest tests/containers $(ARGS)

test-coverage: setup ## Run the tests with a coverage report (htmlcov/)
	@.venv/bin/pytest tests --ignore=tests/dags --ignore=tests/containers --cov=product_classifier --cov-report=term --cov-report=html $(ARGS)

lint: setup ## Check style and correctness without changing anything
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .

format: setup ## Format the code and apply safe fixes
	@.venv/bin/ruff check --fix --quiet . ; .venv/bin/ruff format .

check: lint ## Everything that CI checks besides the tests: ruff, mypy, import contracts
	@.venv/bin/mypy && .venv/bin/lint-imports

clean: ## Remove caches and .state after a question; never data or models
	@$(RUN) clean $(ARGS)
