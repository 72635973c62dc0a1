# The images that stand in for others' in tests, all at once, from the project's root:
#   docker buildx bake --file tests/containers/standins/docker-bake.hcl

variable "PYTHON_IMAGE" { default = "python:3.13-slim-trixie" }

group "default" {
  targets = ["postgres", "redis", "haproxy", "s3", "prometheus", "alertmanager", "node-exporter"]
}

target "common" {
  context = "."
  args    = { PYTHON_IMAGE = PYTHON_IMAGE }
}

target "postgres" {
  inherits   = ["common"]
  dockerfile = "tests/containers/standins/postgres/Dockerfile"
  tags       = ["product-classifier-standin/postgres:local"]
}

target "redis" {
  inherits   = ["common"]
  dockerfile = "tests/containers/standins/redis/Dockerfile"
  tags       = ["product-classifier-standin/redis:local"]
}

target "haproxy" {
  inherits   = ["common"]
  dockerfile = "tests/containers/standins/haproxy/Dockerfile"
  tags       = ["product-classifier-standin/haproxy:local"]
}

target "s3" {
  inherits   = ["common"]
  dockerfile = "tests/containers/standins/s3/Dockerfile"
  tags       = ["product-classifier-standin/s3:local"]
}

target "prometheus" {
  inherits   = ["common"]
  dockerfile = "tests/containers/standins/prometheus/Dockerfile"
  tags       = ["product-classifier-standin/prometheus:local"]
}

target "alertmanager" {
  inherits   = ["common"]
  dockerfile = "tests/containers/standins/alertmanager/Dockerfile"
  tags       = ["product-classifier-standin/alertmanager:local"]
}

target "node-exporter" {
  inherits   = ["common"]
  dockerfile = "tests/containers/standins/node-exporter/Dockerfile"
  tags       = ["product-classifier-standin/node-exporter:local"]
}
