-- Nothing to change: the parts are PostgreSQL's. The number is taken so that both databases count
-- alike.
select 1;
