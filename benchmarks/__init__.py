"""What the pipeline costs, measured beside others doing the same job. ``make bench`` runs it all.

Nothing here is part of the package. Figures are read as ratios within one run.
"""
