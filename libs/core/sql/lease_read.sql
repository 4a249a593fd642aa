-- Who holds a lease, and how often it was renewed. $1 name
select holder, renewals, released from leases where name = $1
