"""The plan: what must be computed, and why, from a scan and the last snapshot. It reads no media.

A stored row is current when its content and its recipe are those wanted today. Everything is compared in columns, so a
plan costs a few vector passes however many samples are unchanged.

asked    what a run is limited to
feature  what one feature needs: the status of each sample, and why
compare  wanted rows against stored ones
shards   which shard each sample is of; places finds samples in the table
whole    the plan of a run
"""

from pipeline.plan.asked import EVERYTHING, Asked
from pipeline.plan.compare import plan_feature
from pipeline.plan.feature import COMPUTED, FeaturePlan, Standing, Status, Wanted
from pipeline.plan.whole import Plan, make_plan, sample_rows, streamless

__all__ = [
    "COMPUTED",
    "EVERYTHING",
    "Asked",
    "FeaturePlan",
    "Plan",
    "Standing",
    "Status",
    "Wanted",
    "make_plan",
    "plan_feature",
    "sample_rows",
    "streamless",
]
