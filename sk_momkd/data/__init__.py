"""Bags, graphs, omics and cohorts: everything that is not yet a tensor."""
