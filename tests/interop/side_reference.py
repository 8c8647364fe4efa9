"""What the daemon must write of the streams beside the gradient, computed again in double precision."""

import math

import numpy as np

from trainer import widened


def norm(vector):
    return math.sqrt(float(vector @ vector))


def difference(now, before):
    """Element by element; what is not finite in either counts as no difference."""
    with np.errstate(invalid="ignore"):
        result = now - before
    return np.where(np.isfinite(result), result, 0.0)


class SideReference:
    """Feed it a run's steps in order; each gives the values that the streams show at that step."""

    def __init__(self, run):
        self.run = run
        self.history = {name: {} for name in run.sides()}  # name -> step -> vector
        self.start = {}  # name -> (step, vector)
        self.lipschitz = 0.0
        self.optimizer_step = 0
        since = "start" if run.first_step <= 1 else f"step{run.first_step}"
        self.since = {"parameters": since, "outputs": since}
        for name in self.since:
            start = getattr(run, f"start_{name}")
            if start is not None:
                self.since[name] = "start"
                self.start[name] = (None, self._widened(start, name))

    def _vector(self, step, name):
        value = getattr(step, name)
        return None if value is None else self._widened(value, name)

    def _widened(self, value, name):
        arrays = [value] if name == "outputs" else value
        element_type = getattr(self.run, name).element_type
        return np.concatenate([widened(np.asarray(array).ravel(), element_type) for array in arrays]).astype(np.float64)

    def _before(self, step, name, lag=1):
        return self.history.get(name, {}).get(step - lag * self.run.sides()[name].stride)

    def step(self, step):
        if step.applied:
            self.optimizer_step = step.optimizer_step or self.optimizer_step + 1
        now = {name: self._vector(step, name) for name in self.run.sides()}
        now = {name: vector for name, vector in now.items() if vector is not None}
        values = {}
        if step.model_version is not None:
            values["staleness/observed"] = step.step - step.model_version
        if "probe_gradients" in now:
            values |= self._probe(step, now)
        if "parameters" in now:
            values |= self._parameters(step.step, now["parameters"])
        if "outputs" in now:
            values |= self._outputs(step.step, now)
        for name, vector in now.items():
            self.history[name][step.step] = vector
            self.start.setdefault(name, (step.step, vector))
        return values

    def _probe(self, step, now):
        values = {}
        g = np.where(np.isfinite(now["probe_gradients"]), now["probe_gradients"], 0.0)
        ratios = [1.0]
        for lag in range(1, self.run.max_lag + 1):
            past = self._before(step.step, "probe_gradients", lag)
            if past is None or not g @ g:
                ratios.append(None)
                continue
            past = np.where(np.isfinite(past), past, 0.0)
            ratios.append(float(g @ past) / float(g @ g))
            values[f"coherence_probe/ratio_lag{lag}"] = ratios[-1]
            if past @ past:
                values[f"coherence_probe/cosine_lag{lag}"] = float(g @ past) / norm(g) / norm(past)
        if None not in ratios[:-1] and g @ g:
            values["coherence_probe/mu"] = min(ratios[:-1])
        if None not in ratios:
            values["coherence_probe/mu_past"] = min(ratios[1:])
            positive = [ratio > 0 for ratio in ratios[1:]] + [False]
            values["coherence_probe/tolerable_staleness"] = positive.index(False)
        values |= self._curvature(step, now)
        mu = values.get("coherence_probe/mu", 0.0)
        if mu > 0 and self.lipschitz > 0:
            values["staleness/lr_bound"] = mu / (self.run.max_lag * self.lipschitz * math.sqrt(self.optimizer_step))
        return values

    def _curvature(self, step, now):
        sides = self.run.sides()
        if "parameters" not in now or sides["parameters"].stride != sides["probe_gradients"].stride:
            return {}
        x, g = self._before(step.step, "parameters"), self._before(step.step, "probe_gradients")
        if x is None or g is None:
            return {}
        dx, dg = difference(now["parameters"], x), difference(now["probe_gradients"], g)
        if not dx @ dx:
            return {}
        values = {"curvature/secant": float(dx @ dg) / float(dx @ dx), "curvature/lipschitz": norm(dg) / norm(dx)}
        if self.run.optimizer.rule == "sgd" and len(set(step.learning_rates)) == 1:
            values["curvature/step_times_secant"] = step.learning_rates[0] * values["curvature/secant"]
        self.lipschitz = max(self.lipschitz, values["curvature/lipschitz"])
        return values

    def _distances(self, step, name, vector):
        """From one stride ago and from the start; None: no such."""
        before, start = self._before(step, name), self.start.get(name)
        return (
            None if before is None else norm(difference(vector, before)),
            None if start is None else norm(difference(vector, start[1])),
        )

    def _parameters(self, step, x):
        moved, away = self._distances(step, "parameters", x)
        values = {}
        size = norm(np.where(np.isfinite(x), x, 0.0))
        if moved is not None:
            values["parameters/l2_step"] = moved
            if size:
                values["parameters/update_ratio"] = moved / size
        if away is not None:
            values[f"parameters/l2_from_{self.since['parameters']}"] = away
        return values

    def _outputs(self, step, now):
        sides, root = self.run.sides(), math.sqrt(self.run.output_examples)
        moved, away = self._distances(step, "outputs", now["outputs"])
        values = {}
        if moved is not None:
            values["function/l2_step"] = moved / root
        if away is not None:
            values[f"function/l2_from_{self.since['outputs']}"] = away / root
        if "parameters" not in now:
            return values
        x_moved, x_away = self._distances(step, "parameters", now["parameters"])
        if moved is not None and x_moved and sides["outputs"].stride == sides["parameters"].stride:
            values["function/per_parameter_step"] = moved / root / x_moved
        if away is not None and x_away and self.start["outputs"][0] == self.start["parameters"][0]:
            values[f"function/per_parameter_from_{self.since['outputs']}"] = away / root / x_away
        return values
