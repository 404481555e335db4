"""The reward lab: rewards under the microscope, without a model. `score` grades a file of completions, `rescore` what a
run has sampled, `audit` the graders themselves.
"""
