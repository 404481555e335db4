"""Corpora that graders are measured on: one file each, see `rlhf.lab.cases`."""
