"""What a fitted classifier saw: attention, memory, genes. Reads estimators, draws nothing."""
