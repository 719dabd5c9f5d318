-- Each part in a merge has a buffer for each of its columns. While a large merge goes on, small parts pile up behind it, and then a
-- hundred of them were merged at once: the memory of `up` jumped by 650 MB. Twelve are enough for the tables that wait for ten.
ALTER TABLE tags ${on_cluster} MODIFY SETTING max_parts_to_merge_at_once = 12;

ALTER TABLE tag_lines ${on_cluster} MODIFY SETTING max_parts_to_merge_at_once = 12;

ALTER TABLE tag_stats ${on_cluster} MODIFY SETTING max_parts_to_merge_at_once = 12;

ALTER TABLE logs ${on_cluster} MODIFY SETTING max_parts_to_merge_at_once = 12;

ALTER TABLE objects ${on_cluster} MODIFY SETTING max_parts_to_merge_at_once = 12;

ALTER TABLE event_lines ${on_cluster} MODIFY SETTING max_parts_to_merge_at_once = 12;
