-- Make the rows of queues that are named for the first time. $1 names
insert into queues (name) select distinct unnest($1::text[]) order by 1 on conflict do nothing
