#!/usr/bin/env bash
# The template of the deployment on AWS: cfn-lint, `sam validate --lint`, and template_test.py. Prints the counts at the end.
# Once tools/lambda/setup.sh has installed the tools, no network is needed, and no credentials ever.
set -euo pipefail
cd "$(dirname "$0")/../.."

tools/lambda/setup.sh
.cache/lambda/sam/bin/python tools/lambda/template_test.py \
    || { echo "lint: packaging/lambda/template.yaml must not be deployed like this; what is wrong stands above" >&2; exit 1; }
