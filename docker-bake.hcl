# All images of the project in one build, in parallel: `make build`, or `docker buildx bake` for those who like it plain.
# Each variable is taken from the environment; `product-classifier build` sets IMAGE_TAG and GIT_COMMIT.

variable "IMAGE_PREFIX" { default = "product-classifier" }
variable "IMAGE_TAG" { default = "local" }
variable "GIT_COMMIT" { default = "" }
variable "PYTHON_IMAGE" { default = "python:3.13-slim-trixie" }
variable "PIP_INDEX_URL" { default = "" }
variable "TRAIN_GPU" { default = "" } # anything: with the CUDA libraries

group "default" {
  targets = ["ingest", "train", "predict", "auth", "serve", "airflow", "mlflow", "socket-proxy"]
}

target "common" {
  context = "."
  args = {
    PYTHON_IMAGE  = PYTHON_IMAGE
    PIP_INDEX_URL = PIP_INDEX_URL
    GIT_COMMIT    = GIT_COMMIT
  }
  labels = {
    "org.opencontainers.image.version" = IMAGE_TAG
  }
}

target "ingest" {
  inherits = ["common"]
  target   = "ingest"
  tags     = ["${IMAGE_PREFIX}/ingest:${IMAGE_TAG}"]
}

target "train" {
  inherits = ["common"]
  target   = "train"
  args     = { TRAIN_GPU = TRAIN_GPU }
  tags     = ["${IMAGE_PREFIX}/train:${IMAGE_TAG}"]
}

target "predict" {
  inherits = ["common"]
  target   = "predict"
  tags     = ["${IMAGE_PREFIX}/predict:${IMAGE_TAG}"]
}

target "auth" {
  inherits = ["common"]
  target   = "auth"
  tags     = ["${IMAGE_PREFIX}/auth:${IMAGE_TAG}"]
}

target "serve" {
  inherits = ["common"]
  target   = "serve"
  tags     = ["${IMAGE_PREFIX}/serve:${IMAGE_TAG}"]
}

target "airflow" {
  inherits   = ["common"]
  dockerfile = "airflow/Dockerfile"
  tags       = ["${IMAGE_PREFIX}/airflow:${IMAGE_TAG}"]
}

target "mlflow" {
  inherits   = ["common"]
  dockerfile = "containers/mlflow/Dockerfile"
  tags       = ["${IMAGE_PREFIX}/mlflow:${IMAGE_TAG}"]
}

target "socket-proxy" {
  inherits   = ["common"]
  dockerfile = "containers/socket-proxy/Dockerfile"
  tags       = ["${IMAGE_PREFIX}/socket-proxy:${IMAGE_TAG}"]
}
