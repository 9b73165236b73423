/**
 * What a change marks: stamps, and what its images make of the registered shapes.
 */

export interface MarksOptions {
  /** Where among ARGV they are. */
  readonly stamps: number
  readonly images: number
  readonly wholes: number
  /** How many of one table are marked at most before its shapes are marked as wholes. */
  readonly maxMarks: number
}

/** `markAll()` marks what a script was given: `stamps`. */
export const marks = ({ images, maxMarks, stamps, wholes }: MarksOptions): string => `
local function shapesOf(name)
  local shapes = {}
  for _, line in ipairs(lines(redis.call("HGET", META, "s:" .. name) or "")) do
    local columns = {}
    for column in string.gmatch(line, "[^\\t]+") do columns[#columns + 1] = column end
    shapes[#shapes + 1] = columns
  end
  return shapes
end

local stamps, seen = {}, {}
local function mark(stamp)
  if not seen[stamp] then
    seen[stamp] = true
    stamps[#stamps + 1] = stamp
  end
end
local function markWhole(name, shape)
  mark(name .. "(" .. table.concat(shape, ",") .. ")")
end

local function markImages()
  local images = {}
  for line in string.gmatch(ARGV[${images}], "[^\\n]+") do
    local name, values, column = nil, {}, nil
    for cell in string.gmatch(line, "[^\\t]+") do
      if not name then name = cell
      elseif not column then column = cell
      else
        values[column] = column .. "=" .. cell
        column = nil
      end
    end
    images[name] = images[name] or {}
    table.insert(images[name], values)
  end
  for name, known in pairs(images) do
    local shapes = shapesOf(name)
    for _, shape in ipairs(shapes) do
      if #known * #shapes > ${maxMarks} then markWhole(name, shape)
      else
        for _, values in ipairs(known) do
          local cells = {}
          for c, column in ipairs(shape) do
            cells[c] = values[column]
            if not cells[c] then break end
          end
          if #cells == #shape then mark(name .. "(" .. table.concat(cells, ",") .. ")")
          else markWhole(name, shape) end
        end
      end
    end
  end
end

local function markAll()
  for stamp in string.gmatch(ARGV[${stamps}], "[^\\n]+") do mark(stamp) end
  markImages()
  for name in string.gmatch(ARGV[${wholes}], "[^\\n]+") do
    for _, shape in ipairs(shapesOf(name)) do markWhole(name, shape) end
  end
end
`

/**
 * Advances the clock and stamps `stamps` with it. Should a server refuse that, the metadata are unlinked, which
 * invalidates everything.
 */
export const advance = `
  local stamped = pcall(function()
    clock = redis.call("HINCRBY", META, "clk", 1)
    zadd("XX", stamps)
  end)
  if not stamped then rotate(redis.pcall)
  elseif #stamps > 1000 then publish(true, {})
  else publish(false, stamps) end
`
