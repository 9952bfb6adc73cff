"""A student in closed form on pooled bags, by which the weight of an omics teacher is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve

from .cross_fitted_teacher import CrossFittedTeacher
from .teacher_evidence import WEIGHTS, Evidence
from .teacher_weight import Samples, evidence_of_patients, targets_by_weight

_PERMUTATIONS = 5
_CLIP = 6.0  # standard deviations


def pooled_evidence(samples: Samples, teacher: CrossFittedTeacher, temperature: float) -> Evidence:
    """Judge a teacher, and controls, by ridge regression on mean and standard deviation of bags.

    The students of each weight are fitted without each fold and scored in it; labels of the fold
    reach neither them nor the teachers of their soft labels. Controls are teachers permuted among
    the patients of a class, and a cross-fitted ridge regression on the slides (self-distillation).

    Parameters
    ----------
    samples : Samples
        `X` is the mean and the standard deviation of the patches of each bag, (n_bags, 2 *
        n_features).
    teacher : CrossFittedTeacher
    temperature : float

    Returns
    -------
    Evidence
    """
    pooled = samples.X
    permuted = [permuted_within_class(teacher, seed) for seed in range(_PERMUTATIONS)]
    slides = slide_teacher(pooled, samples, teacher)
    scores = _student_scores(pooled, samples, [teacher, *permuted, slides], temperature)
    own, *others = (evidence_of_patients(samples, values, teacher) for values in scores)
    *mixed, distilled = (other.students for other in others)
    return replace(own, controls={"permuted": np.stack(mixed), "self_distilled": distilled[None]})


def permuted_within_class(teacher: CrossFittedTeacher, seed: int) -> CrossFittedTeacher:
    """Exchange the teacher's logits among the patients of a class in each fold."""
    random, order = np.random.default_rng(seed), np.arange(len(teacher.labels))
    strata = np.stack([teacher.labels, teacher.patient_folds])
    for stratum in np.unique(strata, axis=1).T:
        members = np.flatnonzero((strata == stratum[:, None]).all(axis=0))
        order[members] = random.permutation(members)
    return replace(teacher, logits=teacher.logits[order])


def slide_teacher(
    pooled: NDArray, samples: Samples, teacher: CrossFittedTeacher
) -> CrossFittedTeacher:
    """A teacher of the same samples and folds that sees their slides in place of omics."""
    folds, numbers = teacher.sample_folds, samples.numbers
    logits = np.full((len(folds), teacher.n_folds, len(samples.classes)), np.nan)
    for a, b in combinations_with_replacement(range(teacher.n_folds), 2):
        held = (folds == a) | (folds == b)
        found = ridge(pooled[~held], samples.hard[~held], pooled[held])
        logits[held, np.where(folds[held] == a, b, a)] = found
    named = np.where(teacher.patients >= 0, np.arange(len(folds)), -1)
    return CrossFittedTeacher(logits, numbers, folds, folds, named)


def _student_scores(
    pooled: NDArray, samples: Samples, teachers: Sequence[CrossFittedTeacher], temperature: float
) -> NDArray:
    """Scores of shape (n_teachers, n_weights, n_samples, n_classes)."""
    folds, n_classes = teachers[0].sample_folds, len(samples.classes)
    scores = np.empty((len(teachers), len(WEIGHTS), len(folds), n_classes))
    for fold in range(teachers[0].n_folds):
        held = folds == fold
        targets = [
            by_weight
            for teacher in teachers
            for by_weight in targets_by_weight(teacher, samples, temperature, fold)
        ]
        found = ridge(pooled[~held], np.hstack(targets), pooled[held])
        by_teacher = found.reshape(-1, len(teachers), len(WEIGHTS), n_classes)
        scores[:, :, held] = by_teacher.transpose(1, 2, 0, 3)
    return scores


def ridge(X: NDArray, targets: NDArray, X_new: NDArray) -> NDArray:
    """Predictions of ridge regressions of all targets on z-scores clipped at six.

    The penalty is the number of samples: as much as the features together have of variance if each
    is alone.
    """
    mean, spread = X.mean(axis=0), X.std(axis=0)
    spread[spread == 0] = 1.0
    z, z_new = (np.clip((values - mean) / spread, -_CLIP, _CLIP) for values in (X, X_new))
    centre, middle = z.mean(axis=0), targets.mean(axis=0)
    z, z_new, n = z - centre, z_new - centre, len(z)
    if z.shape[1] > n:  # the same by the smaller system
        return middle + z_new @ z.T @ _solve(z @ z.T, targets - middle, n)
    return middle + z_new @ _solve(z.T @ z, z.T @ (targets - middle), n)


def _solve(gram: NDArray, right: NDArray, penalty: float) -> NDArray:
    gram[np.diag_indices_from(gram)] += penalty
    return solve(gram, right, assume_a="pos")
