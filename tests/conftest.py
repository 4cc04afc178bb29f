"""Runs of the tests go to no MLflow store, but where a test says so: the default is a file in the
directory that they run in, the checkout."""

import os

os.environ.setdefault("MLFLOW_TRACKING_URI", "off")
