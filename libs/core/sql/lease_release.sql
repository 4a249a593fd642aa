-- Give a lease back, so that the next candidate need not wait for it to run out. $1 name  $2 holder
update leases set released = true, renewals = renewals + 1 where name = $1 and holder = $2 and not released
