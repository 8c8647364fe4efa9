"""What the daemon must write, computed again: docs/diagnostics.md in textbook form, in double precision.

Nothing here is taken from the kernels: second moments are v = b2 v + (1 - b2) g^2 and kept as such, every sum is
numpy's over float64 arrays.
"""

import math
import re
from dataclasses import replace

import numpy as np

from trainer import Optimizer

EMA_RULES = ("adam", "adamw", "rmsprop", "amsgrad")
WHOLE_HISTORY_RULES = ("amsgrad", "adagrad", "adafom")
CORRECTED_BY_DEFAULT = ("adam", "adamw")
FLT_MAX = float(np.finfo(np.float32).max)


# A sum of squares or products of f32 values in lanes of 64 addends, relative to the sum of their sizes.
ROUNDING = 1e-6


def of_sizes(small, b, big, B):
    """S, G2, and how far each may be off."""
    S, G2 = (small - big) / (1 / b - 1 / B), (B * big - b * small) / (B - b)
    return S, G2, ROUNDING * (small + big) / (1 / b - 1 / B), ROUNDING * (B * big + b * small) / (B - b)


def memory_steps(beta2):
    """3 / (1 - b2), rounded up; the factor is for 1 - b2 as it rounds (3 / (1 - 0.9) is 30.000000000000007)."""
    return math.ceil(3 / (1 - beta2) * (1 - 1e-12))


def bias_corrected(optimizer):
    if optimizer.rule == "amsgrad":
        return optimizer.maximum_of != "uncorrected"
    default = optimizer.rule in CORRECTED_BY_DEFAULT
    return default if optimizer.bias_correction == "default" else optimizer.bias_correction == "corrected"


def shadow_run(run, rule):
    """The run whose adam/ values are those of a shadow."""
    uncorrected = run.optimizer.rule in EMA_RULES and not bias_corrected(run.optimizer)
    maximum_of = "default" if rule != "amsgrad" else "uncorrected" if uncorrected else "raw_then_corrected"
    optimizer = Optimizer(rule, maximum_of=maximum_of, eps_root=run.optimizer.eps_root)
    return replace(run, optimizer=optimizer, shadow_rules=(), start_second_moment=None, start_second_moment_max=None)


def handed_over(vector, less=0.0):
    """A start vector's elements: negative ones and NaN count as 0, what is above FLT_MAX as FLT_MAX."""
    wide = np.asarray(vector, np.float32).astype(np.float64) - less
    return np.minimum(np.where(wide > 0, wide, 0.0), FLT_MAX)


def pattern_matches(pattern, name):
    parts = {"*": ".*", "?": "."}
    return re.fullmatch("".join(parts.get(c, re.escape(c)) for c in pattern), name) is not None


def shown_name(run, name):
    """Under which name a group is shown; None: it is not selected."""
    if run.include and not any(pattern_matches(pattern, name) for pattern in run.include):
        return None
    if any(pattern_matches(pattern, name) for pattern in run.exclude):
        return None
    return re.match(f"(?:[/.]*[^/.]*){{{run.fold_depth}}}", name)[0] if run.fold_depth else name


def series_of(run):
    """Name -> indices of the groups that are shown under it; empty where nothing is shown."""
    series = {}
    for index, group in enumerate(run.groups):
        name = shown_name(run, group.name)
        if name is not None:
            series.setdefault(name, []).append(index)
    shown = len(series) <= 8 if run.per_group is None else run.per_group
    return series if shown else {}


class GroupState:
    def __init__(self, group):
        self.group = group
        self.second_moment = np.zeros(group.numel)  # adagrad: the sum of squares
        self.maximum = np.zeros(group.numel)
        self.counted = np.zeros(group.numel, bool)  # has been active before
        self.effective = None  # e of the last applied step in which the group was present
        self.lag = group.step_lag  # how far its own t is behind optimizer_step
        self.updates = 0  # applied steps in which the group was present
        self.missing = 0  # the run's missing steps when it was last present


class NoiseAverage:
    """S and G2 averaged apart, each with weights that fall by 0.99 an estimate; and what rounding may make of them."""

    def __init__(self):
        self.S, self.G2, self.slack_S, self.slack_G2 = [], [], [], []

    def add(self, S, G2, slack_S, slack_G2):
        for series, one in zip((self.S, self.G2, self.slack_S, self.slack_G2), (S, G2, slack_S, slack_G2)):
            series.append(one)

    def mean(self, series):
        weights = 0.99 ** np.arange(len(series) - 1, -1, -1)
        return np.sum(weights * np.array(series)) / np.sum(weights)


class Reference:
    """Feed it a run's steps in order; each gives the values that step must have in the file."""

    def __init__(self, run):
        self.run = run
        self.rule = run.optimizer.rule
        self.beta2 = [p.beta2 for p in run.parameter_groups]
        self.eps = [p.eps for p in run.parameter_groups]
        self.groups = [GroupState(group) for group in run.groups]
        self.history = {}  # step -> gradients
        self.first_optimizer_step = None
        self.last_optimizer_step = None
        self.applied_steps = 0
        self.missing = 0  # optimiser steps between the applied ones that were not seen
        self.silent_steps = 0
        self.kept = []  # (A, B, C, D) after each applied step of the family, from n = 1
        self.shadows = {rule: Reference(shadow_run(run, rule)) for rule in run.shadow_rules}
        self.series = series_of(run)
        self.series_totals = {name: np.zeros(4) for name in self.series}
        self.noise = {"noise": NoiseAverage(), "noise_single": NoiseAverage()}
        self.batches = {}  # step -> (batch size, gradients before clipping), where they tell something of noise
        self.traces = []
        self.peak = None  # (step, smoothed trace)
        self.critical_period_end = None  # (step, peak step, peak)
        self.slack = {}  # of the last step: what its values may be off by, tag by tag
        self.group_terms = {}  # this step's, where they count: group -> (A, B, C, D), effective steps

    def step(self, step):
        step = self._begin(step)
        gradients, non_finite = self._finite(step.gradients)
        values = self._health(gradients, non_finite)
        values |= self._coherence(step.step, gradients)
        values |= self._subspace(step.step, gradients)
        self.slack = {}
        values |= self._noise(step, gradients, non_finite)
        self.group_terms = {}
        if step.applied:
            values |= self._adam(step, gradients)
        if self.applied_steps:
            span = self.last_optimizer_step - self.first_optimizer_step + 1
            values["gradientd/observed_fraction"] = self.applied_steps / span
        values |= self._groups(step.step, step.gradients, gradients)
        self._keep(step.step, gradients)
        for rule, shadow in self.shadows.items():
            for tag, value in shadow.step(step).items():
                family, _, name = tag.partition("/")
                if family == "adam":
                    values[f"shadow_{rule}/{name}"] = value
        return values

    def adam(self, step):
        """The adam/ values of an applied step alone, for runs of so many steps that the others would take minutes."""
        step = self._begin(step)
        return self._adam(step, self._finite(step.gradients)[0])

    def _begin(self, step):
        if self.run.start_second_moment is not None and self.last_optimizer_step is None:
            self._start(step)
        if step.beta2 is not None:
            self.beta2, self.eps = step.beta2, step.eps
        if step.applied and not step.optimizer_step:
            return replace(step, optimizer_step=(self.last_optimizer_step or 0) + 1)
        return step

    @staticmethod
    def _finite(gradients):
        """Non-finite elements count, and contribute zero to everything else, now and as history."""
        finite, non_finite = [], []
        for gradient in gradients:
            if gradient is None:
                finite.append(None)
                continue
            wide = np.asarray(gradient, np.float32).astype(np.float64)
            bad = ~np.isfinite(wide)
            non_finite.append(bad)
            finite.append(np.where(bad, 0.0, wide))
        return finite, non_finite

    # --- health

    @staticmethod
    def _health(gradients, non_finite):
        if all(gradient is None for gradient in gradients):
            return {}
        together = np.concatenate([g for g in gradients if g is not None])
        bad = np.concatenate(non_finite)
        norm = math.sqrt(np.sum(together**2))
        return {
            "gradient/norm": norm,
            "gradient/norm_max": norm,  # the run writes every step
            "gradient/max_abs": np.max(np.abs(together)),
            "gradient/non_finite": np.sum(bad),
            "gradient/zero_fraction": np.sum((together == 0) & ~bad) / together.size,
        }

    # --- group by group

    def _groups(self, step, sent, gradients):
        values = {}
        for name, members in self.series.items():
            present = [i for i in members if gradients[i] is not None]
            if not present:
                continue
            all_sent = np.concatenate([np.asarray(sent[i], np.float32) for i in present])
            together = np.concatenate([gradients[i] for i in present])
            found = {
                "norm": math.sqrt(np.sum(together**2)),
                "max_abs": np.max(np.abs(together)),
                "zero_fraction": np.mean(all_sent == 0),
                "non_finite": np.sum(~np.isfinite(all_sent)),
            }
            for lag in range(1, self.run.max_lag + 1):
                cosine = self._group_cosine(step - lag * self.run.stride, present, gradients)
                if cosine is not None:
                    found[f"cosine_lag{lag}"] = cosine
            found |= self._group_ratios(name, present)
            if not self.run.per_group:
                found = {key: found[key] for key in ("norm", "cosine_lag1") if key in found}
            values |= {f"group_{quantity}/{name}": value for quantity, value in found.items()}
        return values

    def _group_cosine(self, past_step, present, gradients):
        past = self.history.get(past_step)
        both = [i for i in present if past is not None and past[i] is not None]
        if not both:
            return None
        now, then = (np.concatenate([one[i] for i in both]) for one in (gradients, past))
        size = np.linalg.norm(now) * np.linalg.norm(then)
        return now @ then / size if size > 0 else None

    def _group_ratios(self, name, present):
        if not self.group_terms:
            return {}
        self.series_totals[name] += sum(self.group_terms[i][0] for i in present)
        A, B, C, _ = self.series_totals[name]
        found = {"B_over_A": B / A, "C_over_A": C / A} if A > 0 else {}
        sizes = np.concatenate([self.group_terms[i][1] for i in present])
        return found | ({"step_size_mean": np.mean(sizes)} if sizes.size else {})

    # --- coherence

    def _keep(self, step, gradients):
        """The history: what a later step can be a lag of, and no more snapshots than leave a slot free."""
        reach = self.run.max_lag * self.run.stride
        kept = {past: g for past, g in self.history.items() if past > step - reach} | {step: gradients}
        if len(kept) > self.run.max_lag + self.run.inflight:
            kept.pop(min(kept, key=lambda past: ((past - self.run.first_step) % self.run.stride == 0, past)))
        self.history = kept

    def _coherence(self, step, gradients):
        values = {}
        ratios = []  # of lags 1, 2, ... while every one has a value
        for lag in range(1, self.run.max_lag + 1):
            past = self.history.get(step - lag * self.run.stride)
            pairs = [(g, p) for g, p in zip(gradients, past or []) if g is not None and p is not None]
            dot = sum(float(g @ p) for g, p in pairs)
            now2 = sum(float(g @ g) for g, _ in pairs)
            past2 = sum(float(p @ p) for _, p in pairs)
            if now2 > 0:
                values[f"coherence/ratio_lag{lag}"] = dot / now2
                if len(ratios) == lag - 1:
                    ratios.append(dot / now2)
            if now2 > 0 and past2 > 0:
                values[f"coherence/cosine_lag{lag}"] = dot / math.sqrt(now2 * past2)

        if len(ratios) >= self.run.max_lag - 1 and any(np.any(g) for g in gradients if g is not None):
            values["coherence/mu"] = min([1.0] + ratios[: self.run.max_lag - 1])
        if len(ratios) == self.run.max_lag:
            values["coherence/mu_past"] = min(ratios)
            signs = [ratio > 0 for ratio in ratios] + [False]
            values["coherence/tolerable_staleness"] = signs.index(False)
        return values

    # --- noise scale and Fisher information

    def _noise(self, step, gradients, non_finite):
        if not step.batch_size or any(g is None for g in gradients) or any(np.any(bad) for bad in non_finite):
            return self._group_fisher(step, gradients, non_finite) if step.batch_size else {}
        whole = np.concatenate(gradients) / (step.clip_factor or 1.0)
        values = {}
        past = self.batches.get(step.step - self.run.stride)
        if past is not None and step.step - self.run.stride in self.history:
            batch, then = past
            S = np.sum((whole - then) ** 2) / (1 / step.batch_size + 1 / batch)
            size = (whole @ whole + then @ then) / (1 / step.batch_size + 1 / batch)
            slack = ROUNDING * size, ROUNDING * np.linalg.norm(whole) * np.linalg.norm(then)
            values |= self._estimate("noise_single", S, float(whole @ then), *slack)
        self.batches[step.step] = step.batch_size, whole
        smallest = min((norm.batch_size for norm in step.squared_norms), default=math.inf)
        if smallest < step.batch_size:
            small = np.mean([norm.value for norm in step.squared_norms if norm.batch_size == smallest])
            S, G2, *slack = of_sizes(small, smallest, float(whole @ whole), step.batch_size)
            if math.isfinite(S) and math.isfinite(G2):
                values |= self._estimate("noise", S, G2, *slack)
                tag = "fisher/trace" if self.run.labels_from_model else "fisher/trace_empirical"
                values[tag] = S + G2
                self.slack[tag] = sum(slack)
                self._watch_trace(step.step)
        return values | self._group_fisher(step, gradients, non_finite)

    def _estimate(self, family, S, G2, slack_S, slack_G2):
        average = self.noise[family]
        average.add(S, G2, slack_S, slack_G2)
        self.slack |= {f"{family}/S": slack_S, f"{family}/G2": slack_G2}
        values = {f"{family}/S": S, f"{family}/G2": G2}
        mean_S, mean_G2 = average.mean(average.S), average.mean(average.G2)
        slack = average.mean(average.slack_G2)
        assert abs(mean_G2) > 10 * slack or mean_G2 == 0, "rounding decides whether there is a ratio"
        if mean_G2 > 0:
            ratio = values[f"{family}/B_simple"] = mean_S / mean_G2
            relative = slack / (mean_G2 - slack)
            self.slack[f"{family}/B_simple"] = abs(ratio) * relative + average.mean(average.slack_S) / mean_G2
        return values

    def _watch_trace(self, step):
        average = self.noise["noise"]
        trace = average.mean(average.S) + average.mean(average.G2)
        if len(average.S) < 20 or self.critical_period_end:
            return
        if self.peak is None or trace > self.peak[1]:
            self.peak = step, trace
        if self.peak[1] > 0 and trace <= self.peak[1] / 2:
            self.critical_period_end = step, *self.peak

    def _group_fisher(self, step, gradients, non_finite):
        smallest = min((norm.batch_size for norm in step.squared_norms), default=math.inf)
        norms = [norm.per_group for norm in step.squared_norms if norm.batch_size == smallest]
        if not smallest < step.batch_size or any(per_group is None for per_group in norms):
            return {}
        values = {}
        bad = iter(non_finite)
        bad = [None if gradient is None else np.any(next(bad)) for gradient in gradients]
        for name, members in self.series.items():
            if any(gradients[i] is None or bad[i] for i in members):
                continue
            small = sum(np.mean([per_group[i] for per_group in norms]) for i in members)
            big = sum(float(gradients[i] @ gradients[i]) for i in members) / (step.clip_factor or 1.0) ** 2
            S, G2, *slack = of_sizes(small, smallest, big, step.batch_size)
            if math.isfinite(S) and math.isfinite(G2):
                values[f"group_fisher/{name}"] = S + G2
                self.slack[f"group_fisher/{name}"] = sum(slack)
        return values

    # --- the window

    def window(self, step, gradients):
        """The last M + 1 gradients, the latest first, absent groups as 0; None where one was not seen."""
        steps = [step - lag * self.run.stride for lag in range(1, self.run.max_lag + 1)]
        if not all(past in self.history for past in steps):
            return None
        rows = [gradients, *(self.history[past] for past in steps)]
        numels = [group.numel for group in self.run.groups]
        return np.array([np.concatenate([np.zeros(n) if g is None else g for g, n in zip(row, numels)]) for row in rows])

    def _subspace(self, step, gradients):
        window = self.window(step, gradients)
        if window is None or not np.any(window):
            return {}
        window = window / np.max(np.abs(window))
        gram = window @ window.T
        trace = np.trace(gram)
        return {
            "subspace/effective_rank": trace**2 / np.sum(gram**2),
            "subspace/top_share": np.linalg.eigvalsh(gram)[-1] / trace,
        }

    # --- Adam-type ratios

    def _start(self, step):
        """The optimiser's state is handed over as step t0 left it."""
        run = self.run
        self.last_optimizer_step = run.start_optimizer_step
        self.first_optimizer_step = run.start_optimizer_step + 1
        initial = float(np.float32(run.optimizer.initial_accumulator))
        for i, state in enumerate(self.groups):
            t = run.start_optimizer_step - state.lag
            if t == 0:  # a slice that has taken no step
                continue
            parameter_group = run.parameter_groups[state.group.parameter_group]
            rate = parameter_group.start_learning_rate
            if rate is None:
                rate = step.learning_rates[state.group.parameter_group]
            state.second_moment = handed_over(run.start_second_moment[i], less=initial)
            state.counted = state.second_moment > 0
            if run.start_second_moment_max is not None:
                state.maximum = handed_over(run.start_second_moment_max[i])
            state.updates = t
            state.effective, _ = self._effective(state, t, rate, parameter_group.beta2, parameter_group.eps)

    def _attach(self, optimizer_step):
        """The first applied snapshot: without the optimiser's v, mid-training means silence."""
        self.first_optimizer_step = optimizer_step
        self.last_optimizer_step = optimizer_step - 1
        if self.rule == "other":  # its effective step is not known
            self.silent_steps = math.inf
            return
        if self.rule == "sgd" or all(optimizer_step - state.lag <= 1 for state in self.groups):
            return
        self.silent_steps = math.inf
        if self.rule not in WHOLE_HISTORY_RULES:
            self.silent_steps = memory_steps(max(self.beta2))

    def _adam(self, step, gradients):
        optimizer_step = step.optimizer_step
        if self.first_optimizer_step is None:
            self._attach(optimizer_step)
        advance = optimizer_step - self.last_optimizer_step  # 1, and 1 more for each missing step
        self.last_optimizer_step = optimizer_step
        self.applied_steps += 1
        self.missing += advance - 1

        sums = np.zeros(4)
        terms = {}
        sizes, elements, relative, relative_elements = [], 0, 0.0, 0
        for index, (state, gradient) in enumerate(zip(self.groups, gradients)):
            if gradient is None:
                if not self.run.absent_counts:
                    state.lag += advance
                continue
            effective, vhat = self._advance(state, gradient, step, advance, optimizer_step - state.lag)
            terms[index] = self._terms(state, gradient, effective), effective[gradient != 0]
            sums += terms[index][0]
            sizes.append(terms[index][1])
            elements += gradient.size
            state.updates += 1
            if self._has_filled(state):
                relative += self._relative_squares(state, gradient, vhat)
                relative_elements += gradient.size
            state.counted |= gradient != 0
            state.effective = effective
            state.missing = self.missing

        if self.applied_steps <= self.silent_steps:
            return {}
        self.group_terms = terms
        values = self._family(sums, np.concatenate([[], *sizes]), elements)
        if relative_elements:
            values["adam/rms"] = math.sqrt(relative / relative_elements)
        return values

    def _advance(self, state, gradient, step, advance, t):
        """Moves a present group's second moment; returns (e_t, vhat_t), each per coordinate."""
        parameter_group = state.group.parameter_group
        rate = step.learning_rates[parameter_group]
        beta2, eps = self.beta2[parameter_group], self.eps[parameter_group]
        square = gradient**2
        v = state.second_moment
        if self.rule in ("sgd", "other"):
            return np.full(gradient.size, rate), None
        if self.rule in EMA_RULES:
            keep = beta2**advance
            v = keep * v + (1 - keep) * square
        elif self.rule == "adagrad":
            v = v + advance * square
        else:
            v = (1 - advance / t) * v + advance / t * square
        state.second_moment = v
        return self._effective(state, t, rate, beta2, eps)

    def _effective(self, state, t, rate, beta2, eps):
        """(e_t, vhat_t) of a second moment that holds step t."""
        optimizer = self.run.optimizer
        v = state.second_moment
        if self.rule == "adagrad":
            rate = rate / (1 + (t - 1) * optimizer.learning_rate_decay)
        correction = 1 - beta2**t if self.rule in EMA_RULES and bias_corrected(self.run.optimizer) else 1.0
        if self.rule == "amsgrad" and optimizer.maximum_of == "corrected":
            vhat = state.maximum = np.maximum(state.maximum, v / correction)
        elif self.rule == "amsgrad":
            state.maximum = np.maximum(state.maximum, v)
            vhat = state.maximum / correction
        elif self.rule == "adagrad":
            vhat = optimizer.initial_accumulator + v
        else:
            vhat = v / correction
        with np.errstate(divide="ignore"):  # coordinates that have never been active, where eps is 0
            return rate / (np.sqrt(vhat + optimizer.eps_root) + eps), vhat

    def _terms(self, state, gradient, effective):
        """What this step adds to A, B, C, D."""
        active = gradient != 0
        e = effective[active]
        terms = np.array([np.sum(e), np.sum((e * gradient[active]) ** 2), 0.0, 0.0])
        if state.effective is None or state.missing != self.missing:
            return terms
        compared = active if self.rule == "sgd" else active & state.counted
        change = effective[compared] - state.effective[compared]
        terms[2:] = np.sum(np.abs(change)), np.sum(change**2)
        return terms

    def _relative_squares(self, state, gradient, vhat):
        active = gradient != 0
        floor = self.eps[state.group.parameter_group] ** 2
        return np.sum(gradient[active] ** 2 / np.maximum(vhat[active], floor))

    def _family(self, sums, sizes, elements):
        before = self.kept[-1] if self.kept else np.zeros(4)
        self.kept.append(before + sums)
        values = {f"step_sums/{name}": one for name, one in zip("ABCD", sums)}
        values |= {f"adam/{name}": one for name, one in zip("ABCD", self.kept[-1])}
        if elements:
            values["adam/active_fraction"] = sizes.size / elements
        if sizes.size:
            values["adam/step_size_min"] = np.min(sizes)
            values["adam/step_size_mean"] = np.mean(sizes)
        return values | self._ratios()

    def _has_filled(self, state):
        """An uncorrected v starts at 0: g^2 / vhat means something once it has filled."""
        if self.rule in ("sgd", "other"):
            return False
        if self.rule not in EMA_RULES or bias_corrected(self.run.optimizer):
            return True
        return state.updates >= memory_steps(self.beta2[state.group.parameter_group])

    def _ratios(self):
        n = len(self.kept)
        A, B, C, _ = self.kept[-1]
        if A == 0:
            return {}
        values = {"adam/B_over_A": B / A, "adam/C_over_A": C / A}
        if n < 16:
            return values
        half_A, half_B, half_C, _ = self._interpolated(n / 2)
        if half_B > 0:
            values["adam/slope_B_over_A"] = math.log2(B / A) - math.log2(half_B / half_A)
        if half_C > 0:
            values["adam/slope_C_over_A"] = math.log2(C / A) - math.log2(half_C / half_A)
        if A > half_A:
            values["adam/oscillation"] = (C - half_C) / (A - half_A)
        return values

    def _interpolated(self, n):
        """The sums at n >= 8, from those kept at 2^j (8 + i), i = 0..7."""
        spacing = 1
        while 16 * spacing <= n:
            spacing *= 2
        low = int(n // spacing) * spacing
        share = (n - low) / spacing
        if share == 0:
            return self.kept[low - 1]
        return (1 - share) * self.kept[low - 1] + share * self.kept[low + spacing - 1]
