-- Take one try of an allowance, if there is one: the rule of core/domain/limits.py, a row for each key.
-- $1 key  $2 seconds of the whole allowance  $3 seconds in which one try comes back
-- The row's lock puts the tries of a key behind one another, whichever process they come through. What is further
-- ahead than the whole allowance was written by another clock: it counts as all used up, and refuses nobody for hours.
with taken as (
    insert into login_tries as kept (key, whole_at)
    values ($1, clock_timestamp() + make_interval(secs => $3))
    on conflict (key) do update
    set whole_at = least(greatest(kept.whole_at, clock_timestamp()),
                         clock_timestamp() + make_interval(secs => $2 - $3)) + make_interval(secs => $3)
    where kept.whole_at not between clock_timestamp() + make_interval(secs => $2 - $3)
                                and clock_timestamp() + make_interval(secs => $2)
    returning whole_at
)
select true as granted, extract(epoch from whole_at - clock_timestamp())::float8 as reset from taken
union all
select false, extract(epoch from whole_at - clock_timestamp())::float8
from login_tries where key = $1 and not exists (select from taken)
