//! The structures of a parquet file's footer and page headers, as defined in parquet.thrift.

/// The type of a field.
pub enum Kind {
    Bool,
    Byte,
    I16,
    I32,
    I64,
    Double,
    Binary,
    List(&'static Kind),
    Struct(Fields),
}

/// A structure's fields, by number. Fields that are not listed may hold anything.
pub type Fields = &'static [(i64, Kind)];

use Kind::*;

const NONE: Fields = &[];

const STATISTICS: Fields = &[
    (1, Binary),
    (2, Binary),
    (3, I64),
    (4, I64),
    (5, Binary),
    (6, Binary),
    (7, Bool),
    (8, Bool),
    (9, I64),
];

pub const PAGE_HEADER: Fields = &[
    (1, I32), // type
    (2, I32), // uncompressed_page_size
    (3, I32), // compressed_page_size
    (4, I32), // crc
    // data_page_header
    (5, Struct(&[(1, I32), (2, I32), (3, I32), (4, I32), (5, Struct(STATISTICS))])),
    (6, Struct(NONE)), // index_page_header
    // dictionary_page_header, which starts with its number of values
    (7, Struct(&[(1, I32), (2, I32), (3, Bool)])),
    // data_page_header_v2
    (
        8,
        Struct(&[
            (1, I32),
            (2, I32),
            (3, I32),
            (4, I32),
            (5, I32),
            (6, I32),
            (7, Bool),
            (8, Struct(STATISTICS)),
        ]),
    ),
];

const TIME_UNIT: Fields = &[(1, Struct(NONE)), (2, Struct(NONE)), (3, Struct(NONE))];

const LOGICAL_TYPE: Fields = &[
    (1, Struct(NONE)),                                 // STRING
    (2, Struct(NONE)),                                 // MAP
    (3, Struct(NONE)),                                 // LIST
    (4, Struct(NONE)),                                 // ENUM
    (5, Struct(&[(1, I32), (2, I32)])),                // DECIMAL
    (6, Struct(NONE)),                                 // DATE
    (7, Struct(&[(1, Bool), (2, Struct(TIME_UNIT))])), // TIME
    (8, Struct(&[(1, Bool), (2, Struct(TIME_UNIT))])), // TIMESTAMP
    (10, Struct(&[(1, Byte), (2, Bool)])),             // INTEGER
    (11, Struct(NONE)),                                // UNKNOWN
    (12, Struct(NONE)),                                // JSON
    (13, Struct(NONE)),                                // BSON
    (14, Struct(NONE)),                                // UUID
    (15, Struct(NONE)),                                // FLOAT16
    (16, Struct(&[(1, Byte)])),                        // VARIANT
    (17, Struct(&[(1, Binary)])),                      // GEOMETRY
    (18, Struct(&[(1, Binary), (2, I32)])),            // GEOGRAPHY
];

const SCHEMA_ELEMENT: Fields = &[
    (1, I32),
    (2, I32),
    (3, I32),
    (4, Binary),
    (5, I32),
    (6, I32),
    (7, I32),
    (8, I32),
    (9, I32),
    (10, Struct(LOGICAL_TYPE)),
];

const KEY_VALUE: Fields = &[(1, Binary), (2, Binary)];

const BOUNDING_BOX: Fields = &[
    (1, Double),
    (2, Double),
    (3, Double),
    (4, Double),
    (5, Double),
    (6, Double),
    (7, Double),
    (8, Double),
];

const COLUMN_META_DATA: Fields = &[
    (1, I32),
    (2, List(&I32)),
    (3, List(&Binary)),
    (4, I32),
    (5, I64),
    (6, I64),
    (7, I64),
    (8, List(&Struct(KEY_VALUE))),
    (9, I64),
    (10, I64),
    (11, I64),
    (12, Struct(STATISTICS)),
    (13, List(&Struct(&[(1, I32), (2, I32), (3, I32)]))), // encoding_stats
    (14, I64),
    (15, I32),
    (16, Struct(&[(1, I64), (2, List(&I64)), (3, List(&I64))])), // size_statistics
    (17, Struct(&[(1, Struct(BOUNDING_BOX)), (2, List(&I32))])), // geospatial_statistics
];

const COLUMN_CHUNK: Fields = &[
    (1, Binary),
    (2, I64),
    (3, Struct(COLUMN_META_DATA)),
    (4, I64),
    (5, I32),
    (6, I64),
    (7, I32),
    // crypto_metadata
    (8, Struct(&[(1, Struct(NONE)), (2, Struct(&[(1, List(&Binary)), (2, Binary)]))])),
    (9, Binary),
];

const ROW_GROUP: Fields = &[
    (1, List(&Struct(COLUMN_CHUNK))),
    (2, I64),
    (3, I64),
    (4, List(&Struct(&[(1, I32), (2, Bool), (3, Bool)]))), // sorting_columns
    (5, I64),
    (6, I64),
    (7, I16),
];

const AES: Fields = &[(1, Binary), (2, Binary), (3, Bool)];

pub const FILE_META_DATA: Fields = &[
    (1, I32),
    (2, List(&Struct(SCHEMA_ELEMENT))),
    (3, I64),
    (4, List(&Struct(ROW_GROUP))),
    (5, List(&Struct(KEY_VALUE))),
    (6, Binary),
    (7, List(&Struct(&[(1, Struct(NONE)), (2, Struct(NONE))]))), // column_orders
    (8, Struct(&[(1, Struct(AES)), (2, Struct(AES))])),          // encryption_algorithm
    (9, Binary),
];
