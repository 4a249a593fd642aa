-- Forget whose allowance is whole again. $1 limit
delete from login_tries using (
    select key from login_tries where whole_at < statement_timestamp() limit $1
) as old
where login_tries.key = any (array[old.key]) and login_tries.whole_at < statement_timestamp()
