"""One file per way to find an answer. A sampler is written for one answer to one prompt; the loops run many side by
side and count what each spends.
"""
