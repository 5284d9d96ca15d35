-- Nothing to change: the function is PostgreSQL's. The number is taken so that both databases count
-- alike.
select 1;
