-- Which have come to rest and expired, the longest expired first.
return redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', (clock()), 'LIMIT', ARGV[1], ARGV[2])
