-- Merging cost more CPU than inserting.

-- Six arrays a line: merging row by row takes them apart and puts them together again, a column at a time they are copied in
-- runs, for a third less CPU. ClickHouse by itself does so only from 11 columns on that are not part of the order.
ALTER TABLE tag_lines ${on_cluster} MODIFY SETTING vertical_merge_algorithm_min_columns_to_activate = 1, merge_selector_base = 10;

-- Merged when ten parts of a size are there instead of five: a line is written again half as often. Not so tags, of which a slice
-- reads every part; what is asked of these tables is mostly one trace.
ALTER TABLE logs ${on_cluster} MODIFY SETTING merge_selector_base = 10;

ALTER TABLE objects ${on_cluster} MODIFY SETTING merge_selector_base = 10;

ALTER TABLE event_lines ${on_cluster} MODIFY SETTING merge_selector_base = 10;
