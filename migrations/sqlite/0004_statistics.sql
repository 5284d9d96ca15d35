-- Nothing to change: SQLite takes no samples by itself. The number is taken so that both databases
-- count alike.
select 1;
