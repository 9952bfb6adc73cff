"""Numbers that can be believed: by patient, out of fold, with intervals."""
