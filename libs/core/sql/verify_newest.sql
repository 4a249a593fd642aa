-- The id after which the newest tasks begin, null when there are fewer. $1 how many
select id from tasks order by id desc offset $1 limit 1
