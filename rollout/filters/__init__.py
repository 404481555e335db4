"""One file per filter. Filters run in config order between scoring and advantages, one group at a time.

A filter drops a group (`Kept.group` None, with the reason that is counted) or hands on a group in which some rewards
may have become None, out of the update but still in the log.
"""
