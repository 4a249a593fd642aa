-- Renew a lease that is ours. $1 name  $2 holder
update leases set renewals = renewals + 1 where name = $1 and holder = $2 and not released returning renewals
