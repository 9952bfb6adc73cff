"""What scikit-learn sees: validate, build, fit, predict."""
