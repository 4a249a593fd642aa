-- Take a lease that nobody has had yet, or whose counter is still the one that was watched: compare-and-set.
-- $1 name  $2 holder  $3 renewals as last read
insert into leases (name, holder, renewals, released) values ($1, $2, 1, false)
on conflict (name) do update set holder = excluded.holder, renewals = leases.renewals + 1, released = false
where leases.renewals = $3
returning renewals
