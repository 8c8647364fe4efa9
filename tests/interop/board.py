"""A real TensorBoard, and what it shows."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

from waiting import wait_until

START_SECONDS = 60


class TensorBoard:
    def __init__(self, logdir, load_fast):
        self.output = open(logdir.parent / f"tensorboard-{load_fast}", "w+b")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1", "--port", "0"]
            + ["--reload_interval", "1", f"--load_fast={load_fast}"],
            stdout=self.output,
            stderr=self.output,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.address = wait_until(self._address, START_SECONDS, "TensorBoard's address")

    def _address(self):
        assert self.process.poll() is None, self.messages()
        for word in self.messages().split():
            if word.startswith("http://127.0.0.1:"):
                return word.rstrip("/")
        return None

    def messages(self):
        with open(self.output.name, errors="replace") as output:
            return output.read()

    def get(self, path, form=None):
        data = urllib.parse.urlencode(form).encode() if form else None
        try:
            with urllib.request.urlopen(self.address + path, data, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            return None  # not loaded yet

    def post_json(self, path, body):
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            return None  # not loaded yet

    def series(self, tag):
        """run -> [(step, wall time, value)]."""
        requests = json.dumps([{"plugin": "scalars", "tag": tag}])
        (answer,) = self.get("/data/plugin/timeseries/timeSeries", {"requests": requests})
        return {
            run: [(point["step"], point["wallTime"], point["value"]) for point in points]
            for run, points in answer.get("runToSeries", {}).items()
        }

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
        self.output.close()
