"""What the server runs: each script is one step that happens whole, or not at all.

A script that changes something is told a token, which is the new revision. The last 32 tokens stay
in the session's `trail` (for an hour after a delete, too), so that a script that is run twice, as
when its first answer was lost, knows that it was run and does nothing more. A second attempt that
is refused leaves a mark there, so that the first, should it reach the server later still, does
nothing either.

The first command that writes is one that a server without memory refuses: nothing is half done.
Every key is declared, as clusters and proxies ask.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final

__all__ = ["DROP", "LEASE", "LIST", "PATCH", "PUT", "READ", "RELEASE", "TRAIL_IS_FULL", "Script"]

_TRAIL: Final = 32
TRAIL_IS_FULL: Final = _TRAIL * 17
"""Bytes of a trail that may have lost its beginning: a sign and 16 digits for each token."""


class Script:
    """A script, and the digest by which the server knows it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = sha1(text.encode(), usedforsecurity=False).hexdigest()


# KEYS: session, records, gone, times, agents, expiry
# ARGV: name, token, what is expected, whether it is another attempt, milliseconds to live or ''
_BEGIN = """
local S, R, G, times, agents, expiry = unpack(KEYS)
local name, token, expect, again, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1', ARGV[5]

local old = redis.pcall('HMGET', S, 'rev', 'agent', 'saved', 'trail', 'size', 'count')
local damage = old.err
if damage then old = {false, false, false, false, false, false} end
local rev = old[1]
local trail = old[4] or redis.call('GET', G) or ''

local function remember(sign)
  trail = string.sub(trail .. sign .. token, -TRAIL_IS_FULL)
end

local function keep_trail()
  if rev then redis.call('HSET', S, 'trail', trail)
  else redis.call('SET', G, trail, 'PX', 3600000) end
end

if string.find(trail, '+' .. token, 1, true) then
  keep_trail()  -- a write: who then waits for the disk on this connection waits for the first, too
  return {'done'}
end

local function refuse()
  if again then
    remember('-')
    keep_trail()
  end
  return {'refused', rev, trail}
end

if not rev and not damage and redis.call('EXISTS', S) == 1 then damage = 'it has no revision' end
if damage and expect ~= '*' then return {'damaged', damage} end
if string.find(trail, '-' .. token, 1, true) then return {'refused', rev, trail} end
if expect == '-' and rev then return refuse() end
if string.sub(expect, 1, 1) == '=' and string.sub(expect, 2) ~= rev then return refuse() end
if rev and expect ~= '*' and not (old[2] and old[3] and tonumber(old[5]) and
    redis.call('HEXISTS', S, 'head') == 1 and redis.pcall('LLEN', R) == tonumber(old[6])) then
  return {'damaged', 'fields or loop records are missing'}
end
""".replace("TRAIL_IS_FULL", str(TRAIL_IS_FULL))

_INDEX = """
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function index(digest)
  local now = clock[1] * 1000000 + clock[2]
  local last = redis.call('ZREVRANGE', times, 0, 0, 'WITHSCORES')[2]
  if last and now <= tonumber(last) then now = tonumber(last) + 1 end
  local saved = string.format('%016.0f', now)
  local entry = digest .. saved .. name
  local before = old[3]
  if not before then  -- what was stored is damaged, or lost: its entries may be there still
    local score = redis.call('ZSCORE', times, name)
    before = score and string.format('%016.0f', score)
  end
  redis.call('ZADD', agents, 0, entry)
  redis.call('ZADD', times, saved, name)
  if before then
    redis.call('ZREM', agents, (old[2] or digest) .. before .. name)
    redis.call('ZREM', expiry, (old[2] or digest) .. before .. name)
  end
  return saved, entry
end

local function finish(entry)
  if ttl == '' then
    redis.call('PERSIST', S)
    redis.call('PERSIST', R)
  else
    local border = string.format('%.0f', now_ms + ttl)
    redis.call('PEXPIREAT', S, border)
    redis.call('PEXPIREAT', R, border)
    redis.call('ZADD', expiry, border, entry)
  end
  local now_text = string.format('%.0f', now_ms)
  for _, dead in ipairs(redis.call('ZRANGEBYSCORE', expiry, 0, now_text, 'LIMIT', 0, 100)) do
    local saved, its_name = string.sub(dead, 33, 48), string.sub(dead, 49)
    redis.call('ZREM', expiry, dead)
    redis.call('ZREM', agents, dead)
    local score = redis.call('ZSCORE', times, its_name)
    if score and tonumber(score) == tonumber(saved) then redis.call('ZREM', times, its_name) end
  end
  return {'done'}
end
"""

# ARGV besides: digest of the agent, head, and for each record its loop_id and its text
_PUT = """
local digest, head = ARGV[6], ARGV[7]
local saved, entry = index(digest)
redis.call('UNLINK', S, R)
local size, count = #head, 0
local texts, places = {}, {}
for i = 8, #ARGV, 2 do
  texts[#texts + 1] = ARGV[i + 1]
  places[#places + 1] = 'l:' .. ARGV[i]
  places[#places + 1] = count .. ' ' .. #ARGV[i + 1]
  size = size + #ARGV[i + 1]
  count = count + 1
  if #texts == 500 or i + 2 > #ARGV then
    redis.call('RPUSH', R, unpack(texts))
    redis.call('HSET', S, unpack(places))
    texts, places = {}, {}
  end
end
remember('+')
redis.call('HSET', S, 'rev', token, 'agent', digest, 'saved', saved, 'trail', trail,
  'size', size, 'count', count, 'head', head)
return finish(entry)
"""

# ARGV besides: digest of the agent and head, '' if they stay; loop_ids and texts
_PATCH = """
if not rev then return refuse() end
local digest, head = ARGV[6], ARGV[7]
local size, count = tonumber(old[5]), tonumber(old[6])
if digest == '' then digest = old[2] end
local saved, entry = index(digest)
for i = 8, #ARGV, 2 do
  local text, place = ARGV[i + 1], redis.call('HGET', S, 'l:' .. ARGV[i])
  local position, length = string.match(place or '', '^(%d+) (%d+)$')
  if position then
    redis.call('LSET', R, position, text)
    size = size - length
  else
    redis.call('RPUSH', R, text)
    position, count = count, count + 1
  end
  redis.call('HSET', S, 'l:' .. ARGV[i], position .. ' ' .. #text)
  size = size + #text
end
if head ~= '' then
  size = size + #head - redis.call('HSTRLEN', S, 'head')
  redis.call('HSET', S, 'head', head)
end
remember('+')
redis.call('HSET', S, 'rev', token, 'agent', digest, 'saved', saved, 'trail', trail,
  'size', size, 'count', count)
return finish(entry)
"""

_DROP = """
if not rev then return refuse() end
redis.call('UNLINK', S, R)
redis.call('ZREM', times, name)
redis.call('ZREM', agents, old[2] .. old[3] .. name)
redis.call('ZREM', expiry, old[2] .. old[3] .. name)
rev = false
remember('+')
keep_trail()
return {'done'}
"""

# KEYS: session and list of records, again and again. ARGV: whether records are wanted
_READ = """
local found = {}
for i = 1, #KEYS, 2 do
  local fields = redis.pcall('HMGET', KEYS[i], 'rev', 'saved', 'size', 'count', 'head')
  if fields.err then
    fields = {'', fields.err}
  elseif not fields[1] then
    fields = redis.call('EXISTS', KEYS[i]) == 1 and {'', 'it has no revision'} or false
  elseif ARGV[1] == '1' then
    local records = redis.pcall('LRANGE', KEYS[i + 1], 0, -1)
    if records.err then fields = {'', records.err} else fields[6] = records end
  end
  found[#found + 1] = fields
end
return found
"""

# KEYS: index and expiry, again and again. ARGV: digest of an agent or '', how many at most or -1
_LIST = """
local digest, most = ARGV[1], tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
local found = {}
for i = 1, #KEYS, 2 do
  local dead, count, listed = {}, 0, {}
  for _, entry in ipairs(redis.call('ZRANGEBYSCORE', KEYS[i + 1], 0, now)) do
    dead[string.sub(entry, 33)] = true  -- a name may have died more than once
    count = count + 1
  end
  local limit = most < 0 and -1 or most + count
  if digest == '' then
    listed = redis.call('ZREVRANGE', KEYS[i], 0, limit < 0 and -1 or limit - 1, 'WITHSCORES')
  else
    local range = redis.call('ZREVRANGEBYLEX', KEYS[i], '[' .. digest .. '\\255',
      '[' .. digest, 'LIMIT', 0, limit)
    for _, entry in ipairs(range) do
      listed[#listed + 1] = string.sub(entry, 49)
      listed[#listed + 1] = string.sub(entry, 33, 48)
    end
  end
  if count > 0 then
    local alive = {}
    for j = 1, #listed, 2 do
      if not dead[string.format('%016.0f', listed[j + 1]) .. listed[j]] then
        alive[#alive + 1] = listed[j]
        alive[#alive + 1] = listed[j + 1]
      end
    end
    listed = alive
  end
  if #listed > 0 then found[#found + 1] = listed end
end
if most < 0 then return found end
local all, first = {}, {}
for _, listed in ipairs(found) do
  for j = 1, #listed, 2 do all[#all + 1] = {listed[j], tonumber(listed[j + 1])} end
end
table.sort(all, function(a, b) return a[2] > b[2] or (a[2] == b[2] and a[1] < b[1]) end)
for j = 1, math.min(most, #all) do
  first[#first + 1] = all[j][1]
  first[#first + 1] = string.format('%.0f', all[j][2])
end
return {first}
"""

# KEYS: lease. ARGV: who wants it, milliseconds that it lasts
_LEASE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return {'held', holder} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {holder and 'kept' or 'taken'}
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

PUT: Final = Script(_BEGIN + _INDEX + _PUT)
"""Replaces the session."""

PATCH: Final = Script(_BEGIN + _INDEX + _PATCH)
"""Adds loop records to a stored session, replaces some in their places, or its head."""

DROP: Final = Script(_BEGIN + _DROP)
"""Deletes the session."""

READ: Final = Script(_READ)
"""Returns sessions, each as of one moment, with or without their loop records."""

LIST: Final = Script(_LIST)
"""Returns names and times from each index that has any, the most recently saved first."""

LEASE: Final = Script(_LEASE)
"""Takes a lease or makes it last; tells the holder if that is another."""

RELEASE: Final = Script(_RELEASE)
"""Gives a lease back, if it is held still."""
